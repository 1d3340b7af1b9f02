package main

import (
	"cmp"
	"math"
	"slices"
)

// quantile returns the smallest value that at least the part p of values does not
// exceed: 0 is the least, 0.5 the median, 0.99 the p99. No values give zero.
func quantile[T cmp.Ordered](values []T, p float64) T {
	if len(values) == 0 {
		var zero T
		return zero
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// median of an even number of values is the mean of the two in the middle.
func median(values []float64) float64 {
	lower := quantile(values, 0.5)
	if len(values)%2 == 1 || len(values) == 0 {
		return lower
	}
	return (lower + slices.Sorted(slices.Values(values))[len(values)/2]) / 2
}
