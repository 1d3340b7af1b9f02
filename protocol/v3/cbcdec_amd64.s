#include "textflag.h"

// EACH does one thing to all eight states, which do not wait for one another.
#define EACH(op, with) \
	op with, X0 \
	op with, X1 \
	op with, X2 \
	op with, X3 \
	op with, X4 \
	op with, X5 \
	op with, X6 \
	op with, X7

// CHAIN adds the ciphertext block at offset to the state of the next. It reads
// through a register, because memory operands of PXOR must be aligned.
#define CHAIN(offset, state) \
	MOVOU offset(SI), X8 \
	PXOR  X8, state

// func decryptCBC(keys *[60]uint32, rounds int, iv *[16]byte, dst, src []byte)
TEXT ·decryptCBC(SB), NOSPLIT, $0-72
	MOVQ  keys+0(FP), AX     // the key of the last round; the first to use is at BX
	MOVQ  rounds+8(FP), BX
	SHLQ  $4, BX
	ADDQ  AX, BX
	MOVQ  iv+16(FP), DX
	MOVQ  dst_base+24(FP), DI
	MOVQ  src_base+48(FP), SI
	MOVQ  src_len+56(FP), CX
	MOVOU (DX), X9           // the ciphertext block before SI
	SUBQ  $128, CX           // until ones, CX is what remains less 128
	JLT   ones

eights:
	MOVOU (BX), X8
	MOVOU (SI), X0
	MOVOU 16(SI), X1
	MOVOU 32(SI), X2
	MOVOU 48(SI), X3
	MOVOU 64(SI), X4
	MOVOU 80(SI), X5
	MOVOU 96(SI), X6
	MOVOU 112(SI), X7
	EACH(PXOR, X8)
	LEAQ  -16(BX), R8

round8:
	MOVOU (R8), X8
	EACH(AESDEC, X8)
	SUBQ  $16, R8
	CMPQ  R8, AX
	JNE   round8
	MOVOU (AX), X8
	EACH(AESDECLAST, X8)

	// In place, plaintext overwrites the ciphertext: that is read before.
	PXOR  X9, X0
	CHAIN(0, X1)
	CHAIN(16, X2)
	CHAIN(32, X3)
	CHAIN(48, X4)
	CHAIN(64, X5)
	CHAIN(80, X6)
	CHAIN(96, X7)
	MOVOU 112(SI), X9
	MOVOU X0, (DI)
	MOVOU X1, 16(DI)
	MOVOU X2, 32(DI)
	MOVOU X3, 48(DI)
	MOVOU X4, 64(DI)
	MOVOU X5, 80(DI)
	MOVOU X6, 96(DI)
	MOVOU X7, 112(DI)
	ADDQ  $128, SI
	ADDQ  $128, DI
	SUBQ  $128, CX
	JGE   eights

ones:
	ADDQ  $128, CX
	JZ    done

one:
	MOVOU (SI), X1
	MOVOU (BX), X0
	PXOR  X1, X0
	LEAQ  -16(BX), R8

round1:
	MOVOU (R8), X8
	AESDEC X8, X0
	SUBQ  $16, R8
	CMPQ  R8, AX
	JNE   round1
	MOVOU (AX), X8
	AESDECLAST X8, X0
	PXOR  X9, X0
	MOVOU X1, X9
	MOVOU X0, (DI)
	ADDQ  $16, SI
	ADDQ  $16, DI
	SUBQ  $16, CX
	JNZ   one

done:
	MOVOU X9, (DX)
	RET

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), X0
	PSHUFD $0, X0, X0
	AESKEYGENASSIST $0, X0, X0
	MOVL X0, ret+8(FP)
	RET

// func invMixColumns(key *[4]uint32)
TEXT ·invMixColumns(SB), NOSPLIT, $0-8
	MOVQ  key+0(FP), AX
	MOVOU (AX), X0
	AESIMC X0, X0
	MOVOU X0, (AX)
	RET
