#include "textflag.h"

// The kernel folds and encrypts eight states at a time, which do not wait for one
// another, and then looks at the first four bytes of each.

// PRODUCT multiplies the halves of the 16 bytes at offset plus key.
#define PRODUCT(offset, key, freg, product, swapped) \
	FMOVQ  offset(R1), freg                                        \
	VEOR   key.B16, product.B16, product.B16                       \
	VEXT   $8, product.B16, product.B16, swapped.B16               \
	VPMULL swapped.D1, product.D1, product.Q1

// FOLD folds the window at offset.
#define FOLD(offset, freg, state) \
	PRODUCT(offset, V27, freg, state, V12)     \
	PRODUCT(offset+16, V28, F9, V9, V13)       \
	PRODUCT(offset+32, V29, F10, V10, V14)     \
	PRODUCT(offset+48, V30, F11, V11, V15)     \
	VEOR V9.B16, state.B16, state.B16          \
	VEOR V10.B16, V11.B16, V11.B16             \
	VEOR V11.B16, state.B16, state.B16

// ROUND adds the key of the round before and does the round but for its own.
#define ROUND(key, state) \
	AESE  key.B16, state.B16 \
	AESMC state.B16, state.B16

#define ROUNDS(key) \
	ROUND(key, V0) \
	ROUND(key, V1) \
	ROUND(key, V2) \
	ROUND(key, V3) \
	ROUND(key, V4) \
	ROUND(key, V5) \
	ROUND(key, V6) \
	ROUND(key, V7)

// LAST does the last round.
#define LAST(state) \
	AESE V25.B16, state.B16            \
	VEOR V26.B16, state.B16, state.B16

// FIRST gathers the first four bytes of four states in a.
#define FIRST(a, b, c, d) \
	VZIP1 b.S4, a.S4, a.S4 \
	VZIP1 d.S4, c.S4, c.S4 \
	VZIP1 c.D2, a.D2, a.D2

// func skipNEON(k *keys, buf []byte, mask uint32) int
TEXT ·skipNEON(SB), NOSPLIT, $0-48
	MOVD  k+0(FP), R0
	MOVD  buf_base+8(FP), R1
	MOVD  buf_len+16(FP), R2
	MOVWU mask+32(FP), R3
	VDUP  R3, V31.S4
	VLD1.P 64(R0), [V27.B16, V28.B16, V29.B16, V30.B16]
	VLD1.P 64(R0), [V16.B16, V17.B16, V18.B16, V19.B16]
	VLD1.P 64(R0), [V20.B16, V21.B16, V22.B16, V23.B16]
	VLD1   (R0), [V24.B16, V25.B16, V26.B16]
	MOVD  R1, R4
	SUBS  $71, R2, R2        // what eight windows span
	BLT   done

eight:
	FOLD(0, F0, V0)
	FOLD(1, F1, V1)
	FOLD(2, F2, V2)
	FOLD(3, F3, V3)
	FOLD(4, F4, V4)
	FOLD(5, F5, V5)
	FOLD(6, F6, V6)
	FOLD(7, F7, V7)
	ROUNDS(V16)
	ROUNDS(V17)
	ROUNDS(V18)
	ROUNDS(V19)
	ROUNDS(V20)
	ROUNDS(V21)
	ROUNDS(V22)
	ROUNDS(V23)
	ROUNDS(V24)
	LAST(V0)
	LAST(V1)
	LAST(V2)
	LAST(V3)
	LAST(V4)
	LAST(V5)
	LAST(V6)
	LAST(V7)
	FIRST(V0, V1, V2, V3)
	FIRST(V4, V5, V6, V7)
	VCMTST V31.S4, V0.S4, V0.S4   // ones where a bit under the mask is set
	VCMTST V31.S4, V4.S4, V4.S4
	VAND   V4.B16, V0.B16, V0.B16
	VMOV   V0.D[0], R5
	VMOV   V0.D[1], R6
	AND    R5, R6, R5
	CMN    $1, R5
	BNE    done
	ADD    $8, R1
	SUBS   $8, R2, R2
	BGE    eight

done:
	SUB  R4, R1, R1
	MOVD R1, ret+40(FP)
	RET
