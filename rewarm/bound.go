package rewarm

import "math"

// upperBound95 is the one-sided 95 % Clopper-Pearson bound: when k of n observations were
// bad, the true share is at most this, except with a chance of 5 %. For k = 0 it is close
// to 3/n. It is exact and never too small.
func upperBound95(k, n int64) float64 {
	if n <= 0 || k >= n {
		return 1
	}
	if k == 0 {
		return -math.Expm1(math.Log(0.05) / float64(n))
	}
	// The bound is the p at which k or fewer bad ones have a chance of 5 %; that chance
	// falls as p grows.
	lo, hi := float64(k)/float64(n), 1.0
	for range 60 {
		mid := (lo + hi) / 2
		if 1-betaInc(float64(k+1), float64(n-k), mid) > 0.05 {
			lo = mid
		} else {
			hi = mid
		}
	}
	return hi
}

// betaInc is the regularised incomplete beta function: the chance that a Beta(a, b)
// variable is at most x. By Lentz's evaluation of its continued fraction.
func betaInc(a, b, x float64) float64 {
	if x <= 0 {
		return 0
	}
	if x >= 1 {
		return 1
	}
	if x > (a+1)/(a+b+2) {
		return 1 - betaInc(b, a, 1-x)
	}
	la, _ := math.Lgamma(a)
	lb, _ := math.Lgamma(b)
	lab, _ := math.Lgamma(a + b)
	front := math.Exp(lab-la-lb+a*math.Log(x)+b*math.Log1p(-x)) / a
	const tiny = 1e-300
	c, d := 1.0, 1-(a+b)*x/(a+1)
	if math.Abs(d) < tiny {
		d = tiny
	}
	d = 1 / d
	f := d
	for m := 1.0; m < 100_000; m++ {
		for _, num := range [2]float64{
			m * (b - m) * x / ((a + 2*m - 1) * (a + 2*m)),
			-(a + m) * (a + b + m) * x / ((a + 2*m) * (a + 2*m + 1)),
		} {
			if d = 1 + num*d; math.Abs(d) < tiny {
				d = tiny
			}
			if c = 1 + num/c; math.Abs(c) < tiny {
				c = tiny
			}
			d = 1 / d
			f *= c * d
		}
		if math.Abs(c*d-1) < 1e-14 {
			break
		}
	}
	return front * f
}
