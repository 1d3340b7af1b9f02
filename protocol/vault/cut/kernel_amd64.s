#include "textflag.h"

// Both kernels fold and encrypt eight states at a time, which do not wait for one
// another, and then look at the first four bytes of each.

// EACH does one thing to all eight states.
#define EACH(op, with) \
	op with, X0 \
	op with, X1 \
	op with, X2 \
	op with, X3 \
	op with, X4 \
	op with, X5 \
	op with, X6 \
	op with, X7

// PRODUCT multiplies the halves of the 16 bytes at offset plus key. It reads
// through a register, because memory operands of PXOR must be aligned.
#define PRODUCT(offset, key, product) \
	MOVOU     offset(SI), product \
	PXOR      key, product        \
	PCLMULQDQ $0x10, product, product

// FOLD folds the window at offset.
#define FOLD(offset, state) \
	PRODUCT(offset, X12, state)   \
	PRODUCT(offset+16, X13, X8)   \
	PRODUCT(offset+32, X14, X9)   \
	PRODUCT(offset+48, X15, X10)  \
	PXOR X8, state                \
	PXOR X9, X10                  \
	PXOR X10, state

#define ROUND(op, n) \
	MOVOU (64+16*n)(AX), X8 \
	EACH(op, X8)

// FIRST gathers the first four bytes of four states in a.
#define FIRST(a, b, c, d) \
	PUNPCKLLQ  b, a \
	PUNPCKLLQ  d, c \
	PUNPCKLQDQ c, a

// func skipAESNI(k *keys, buf []byte, mask uint32) int
TEXT ·skipAESNI(SB), NOSPLIT, $0-48
	MOVQ   k+0(FP), AX
	MOVQ   buf_base+8(FP), SI
	MOVQ   buf_len+16(FP), CX
	MOVL   mask+32(FP), X11
	PSHUFD $0, X11, X11
	MOVOU  (AX), X12
	MOVOU  16(AX), X13
	MOVOU  32(AX), X14
	MOVOU  48(AX), X15
	MOVQ   SI, DX
	SUBQ   $71, CX           // what eight windows span
	JLT    done

eight:
	FOLD(0, X0)
	FOLD(1, X1)
	FOLD(2, X2)
	FOLD(3, X3)
	FOLD(4, X4)
	FOLD(5, X5)
	FOLD(6, X6)
	FOLD(7, X7)
	ROUND(PXOR, 0)
	ROUND(AESENC, 1)
	ROUND(AESENC, 2)
	ROUND(AESENC, 3)
	ROUND(AESENC, 4)
	ROUND(AESENC, 5)
	ROUND(AESENC, 6)
	ROUND(AESENC, 7)
	ROUND(AESENC, 8)
	ROUND(AESENC, 9)
	ROUND(AESENCLAST, 10)
	FIRST(X0, X1, X2, X3)
	FIRST(X4, X5, X6, X7)
	PXOR     X8, X8
	PAND     X11, X0
	PAND     X11, X4
	PCMPEQL  X8, X0
	PCMPEQL  X8, X4
	POR      X4, X0
	PMOVMSKB X0, BX
	TESTL    BX, BX
	JNZ      done
	ADDQ     $8, SI
	SUBQ     $8, CX
	JGE      eight

done:
	SUBQ DX, SI
	MOVQ SI, ret+40(FP)
	RET

// In the AVX-512 kernel a register has four states, of the windows at offset,
// 16, 32 and 48 bytes further: then each of the four terms of all four folds is
// one load away.

#define EACH512(op, key) \
	op key, Z0, Z0 \
	op key, Z1, Z1 \
	op key, Z2, Z2 \
	op key, Z3, Z3 \
	op key, Z4, Z4 \
	op key, Z5, Z5 \
	op key, Z6, Z6 \
	op key, Z7, Z7

#define PRODUCT512(offset, key, product) \
	VPXORQ     offset(SI), key, product \
	VPCLMULQDQ $0x10, product, product, product

// FOLD512 folds four windows and adds the first round key. 0x96 is the sum of
// three.
#define FOLD512(offset, state) \
	PRODUCT512(offset, Z12, state)      \
	PRODUCT512(offset+16, Z13, Z8)      \
	PRODUCT512(offset+32, Z14, Z9)      \
	PRODUCT512(offset+48, Z15, Z10)     \
	VPTERNLOGQ $0x96, Z8, Z9, state     \
	VPTERNLOGQ $0x96, Z10, Z16, state

#define FIRST512(a, b, c, d) \
	VPUNPCKLDQ  b, a, a \
	VPUNPCKLDQ  d, c, c \
	VPUNPCKLQDQ c, a, a

// HALF512 jumps to done512 if one of 32 values is zero under the mask.
#define HALF512(offset) \
	FOLD512(offset+0, Z0) \
	FOLD512(offset+1, Z1) \
	FOLD512(offset+2, Z2) \
	FOLD512(offset+3, Z3) \
	FOLD512(offset+4, Z4) \
	FOLD512(offset+5, Z5) \
	FOLD512(offset+6, Z6) \
	FOLD512(offset+7, Z7) \
	EACH512(VAESENC, Z17) \
	EACH512(VAESENC, Z18) \
	EACH512(VAESENC, Z19) \
	EACH512(VAESENC, Z20) \
	EACH512(VAESENC, Z21) \
	EACH512(VAESENC, Z22) \
	EACH512(VAESENC, Z23) \
	EACH512(VAESENC, Z24) \
	EACH512(VAESENC, Z25) \
	EACH512(VAESENCLAST, Z26) \
	FIRST512(Z0, Z1, Z2, Z3) \
	FIRST512(Z4, Z5, Z6, Z7) \
	VPTESTNMD Z27, Z0, K1 \
	VPTESTNMD Z27, Z4, K2 \
	KORTESTW  K1, K2      \
	JNZ       done512

// func skipAVX512(k *keys, buf []byte, mask uint32) int
TEXT ·skipAVX512(SB), NOSPLIT, $0-48
	MOVQ            k+0(FP), AX
	MOVQ            buf_base+8(FP), SI
	MOVQ            buf_len+16(FP), CX
	MOVL            mask+32(FP), BX
	VPBROADCASTD    BX, Z27
	VBROADCASTI32X4 (AX), Z12
	VBROADCASTI32X4 16(AX), Z13
	VBROADCASTI32X4 32(AX), Z14
	VBROADCASTI32X4 48(AX), Z15
	VBROADCASTI32X4 64(AX), Z16
	VBROADCASTI32X4 80(AX), Z17
	VBROADCASTI32X4 96(AX), Z18
	VBROADCASTI32X4 112(AX), Z19
	VBROADCASTI32X4 128(AX), Z20
	VBROADCASTI32X4 144(AX), Z21
	VBROADCASTI32X4 160(AX), Z22
	VBROADCASTI32X4 176(AX), Z23
	VBROADCASTI32X4 192(AX), Z24
	VBROADCASTI32X4 208(AX), Z25
	VBROADCASTI32X4 224(AX), Z26
	MOVQ            SI, DX
	SUBQ            $127, CX     // what 64 windows span
	JLT             done512

next512:
	HALF512(0)
	HALF512(8)
	ADDQ $64, SI
	SUBQ $64, CX
	JGE  next512

done512:
	SUBQ DX, SI
	MOVQ SI, ret+40(FP)
	VZEROUPPER
	RET
