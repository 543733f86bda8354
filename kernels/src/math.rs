//! Elementary functions that a loop over a slice can take eight at a time.
//!
//! No branch, no table, no call: inlined into `for i in .. { y[i] = tanh(x[i]) }` they become vector
//! code. They multiply and add without fusing, so every instruction set gives the same bits. NaN
//! gives NaN. The errors stated are the largest found over two million floats spread evenly over
//! all bit patterns.

/// Rounds to the nearest whole number what is added to it, and shows it in the low bits.
const ROUNDER: f32 = 12582912.0; // 1.5 · 2²³

/// `ln 2` in two parts; the high one has 15 bits after the point, so a multiple of it is exact.
const LN_2_HIGH: f32 = 0.693_145_75;
const LN_2_LOW: f32 = 1.428_606_8e-6;

/// `(whole, rest)` with `x ≈ whole·ln 2 + r`, `|r| ≤ ln 2 / 2`, and `rest = e^r - 1`.
///
/// The rest is `r + r²·q(r)` with the near-minimax `q` of degree 4 for `(e^r - 1 - r)/r²`, whose
/// own error is 8e-9. Where `x` is NaN so is the rest.
#[inline(always)]
fn reduce(x: f32) -> (i32, f32) {
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let whole = rounded - ROUNDER;
    let r = (x - whole * LN_2_HIGH) - whole * LN_2_LOW;
    let q = 0.001_392_620_3 * r + 0.008_363_195;
    let q = q * r + 0.041_666_556;
    let q = q * r + 0.166_665_77;
    let q = q * r + 0.5;
    let whole = rounded.to_bits().wrapping_sub(ROUNDER.to_bits()) as i32;
    (whole, r + r * r * q)
}

/// `2^n` for `-127 < n < 128`.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32) << 23)
}

/// `e^x`, with a relative error below 1.3e-7; subnormal results are rounded once more.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Comparisons, not `clamp`: they let a NaN through. Beyond the limits the result is 0 or ∞.
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (whole, rest) = reduce(x);
    // In two steps, since 2^whole alone may be no float though the product is.
    let half = whole >> 1;
    (1.0 + rest) * power_of_two(half) * power_of_two(whole.wrapping_sub(half))
}

/// The hyperbolic tangent, with a relative error below 2.5e-7.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // With e = exp(-2|x|) - 1, which is accurate near 0 as well: tanh|x| = -e / (2 + e).
    let t = -2.0 * x.abs();
    let t = if t < -40.0 { -40.0 } else { t };
    let (whole, rest) = reduce(t);
    let scale = power_of_two(whole);
    let e = scale * rest + (scale - 1.0);
    (-e / (2.0 + e)).copysign(x)
}

/// `1 / (1 + e^-x)`, with a relative error below 2e-7 down to x = -87, below which it fades to 0
/// with an absolute error below 2e-38.
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// `1 - tanh²(x)`, the slope of [`tanh`], with a relative error below 1e-5 for `|x|` up to 43, and below
/// 2e-37 beyond.
#[inline(always)]
pub fn sech2(x: f32) -> f32 {
    bell(1.0, 1.0, x)
}

/// `height · (1 - tanh²(t·x))`, as exact as [`sech2`] is of `t·x`.
///
/// Smooth estimators multiply every gradient with it, so it is made half as long as it would be by way
/// of [`exp`], and a loop over `x` has no more multiplications for `height` and `t`.
#[inline(always)]
pub fn bell(height: f32, t: f32, x: f32) -> f32 {
    /// Its low bits, in the place of an exponent, make 2^n of `n` added to it.
    const ROUNDER: f32 = self::ROUNDER + 127.0;
    // With e = exp(-2|t·x|): 4e / (1 + e)², without the cancellation of 1 - tanh².
    let power = x.abs() * (-2.0 * std::f32::consts::LOG2_E * t.abs());
    let power = if power < -126.0 { -126.0 } else { power };
    let rounded = power + ROUNDER;
    let r = power - (rounded - ROUNDER);
    // 2^r for |r| ≤ 1/2: near-minimax, with an error of 2.8e-6, and 1 at 0.
    let p = 0.009_582_85 * r + 0.055_906_42;
    let p = p * r + 0.240_240_99;
    let p = p * r + 0.693_124_2;
    let p = p * r + 1.0;
    let e = p * f32::from_bits(rounded.to_bits() << 23);
    4.0 * height * (e / ((1.0 + e) * (1.0 + e)))
}

/// The natural logarithm, with a relative error below 3e-7: -∞ at zero, NaN below.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    // A subnormal number is made a normal one first.
    let small = x < f32::MIN_POSITIVE;
    let scaled = if small { x * 8_388_608.0 } else { x };
    // scaled = m · 2^whole with m between √½ and √2, and ln m = 2·artanh((m - 1) / (m + 1)).
    let whole = (scaled.to_bits().wrapping_sub(0x3f35_04f3) as i32) >> 23;
    let m = f32::from_bits(scaled.to_bits().wrapping_sub((whole << 23) as u32));
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let p = z * (1.0 / 9.0) + 1.0 / 7.0;
    let p = p * z + 1.0 / 5.0;
    let p = p * z + 1.0 / 3.0;
    let part = 2.0 * s + 2.0 * s * z * p;
    let whole = whole as f32 - if small { 23.0 } else { 0.0 };
    let y = whole * LN_2_HIGH + (part + whole * LN_2_LOW);
    let y = if x == 0.0 { f32::NEG_INFINITY } else { y };
    let y = if x == f32::INFINITY { x } else { y };
    if x >= 0.0 { y } else { f32::NAN }
}

/// `(quarter, r)` with `x ≈ quarter·π/2 + r` and `|r| ≤ π/4`, for `|x|` below 8192; 0 beyond.
#[inline(always)]
fn quarters(x: f32) -> (i32, f32) {
    // π/2 in three parts (Cody and Waite, 1980): products of the first two with whole numbers of 13
    // bits are exact, so nothing is lost where they cancel.
    const HIGH: f32 = 1.570_312_5;
    const MIDDLE: f32 = 4.837_513e-4;
    const LOW: f32 = 7.549_79e-8;
    let near = if x.abs() < 8192.0 { x } else { 0.0 };
    let rounded = near * std::f32::consts::FRAC_2_PI + ROUNDER;
    let whole = rounded - ROUNDER;
    let r = near - whole * HIGH - whole * MIDDLE - whole * LOW;
    // The low bits of the rounded number are the whole one.
    (rounded.to_bits() as i32, if x.is_nan() { x } else { r })
}

/// `sin x` for an even quarter and `cos x` for an odd one, of `x = quarter·π/2 + r`: Taylor's series,
/// with an error below 2e-9 at `|r| = π/4`.
#[inline(always)]
fn wave(quarter: i32, r: f32) -> f32 {
    let z = r * r;
    let p = z * (1.0 / 362_880.0) - 1.0 / 5_040.0;
    let p = p * z + 1.0 / 120.0;
    let p = p * z - 1.0 / 6.0;
    let sin = r + r * z * p;
    let p = 1.0 / 40_320.0 - z * (1.0 / 3_628_800.0);
    let p = p * z - 1.0 / 720.0;
    let p = p * z + 1.0 / 24.0;
    let p = p * z - 0.5;
    let cos = 1.0 + z * p;
    let y = if quarter & 1 == 0 { sin } else { cos };
    if quarter & 2 == 0 { y } else { -y }
}

/// The sine, with an absolute error below 1.2e-7 for `|x|` below 8192; 0 beyond.
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    let (quarter, r) = quarters(x);
    wave(quarter, r)
}

/// The cosine, with an absolute error below 1.2e-7 for `|x|` below 8192; 1 beyond.
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    let (quarter, r) = quarters(x);
    wave(quarter.wrapping_add(1), r)
}

/// The error function, with an absolute error below 4e-7: from 0.5 on by formula 7.1.26 of
/// Abramowitz and Stegun, 1964.
#[inline(always)]
pub fn erf(x: f32) -> f32 {
    let size = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * size);
    let p = 1.061_405_4 * t - 1.453_152;
    let p = p * t + 1.421_413_7;
    let p = p * t - 0.284_496_74;
    let p = p * t + 0.254_829_6;
    let z = size * size;
    let far = 1.0 - p * t * exp(-z);
    // Near zero that is a difference of numbers close to 1; Maclaurin's series is not.
    let q = 1.0 / 216.0 - z * (1.0 / 1_320.0);
    let q = q * z - 1.0 / 42.0;
    let q = q * z + 1.0 / 10.0;
    let q = q * z - 1.0 / 3.0;
    let near = std::f32::consts::FRAC_2_SQRT_PI * (size + size * z * q);
    (if size < 0.5 { near } else { far }).copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waves_are_within_their_stated_errors() {
        for x in floats().chain((0..2_000_000).map(|i| i as f32 * 1e-4 - 100.0)) {
            if x.is_nan() {
                assert!(sin(x).is_nan() && cos(x).is_nan());
                continue;
            }
            let exact = if x.abs() < 8192.0 { f64::from(x) } else { 0.0 };
            for (found, exact) in [(sin(x), exact.sin()), (cos(x), exact.cos())] {
                let error = (f64::from(found) - exact).abs();
                assert!(error < 1.2e-7, "at {x}: {found}, error {error:e}");
            }
        }
    }

    #[test]
    fn erf_is_within_its_stated_error() {
        // e^(-x²) · Σ 2ⁿ x^(2n+1) / (1·3·…·(2n+1)): all terms of one sign.
        let exact = |x: f64| {
            let (mut term, mut sum, mut n) = (x, x, 1.0);
            while term.abs() > 1e-18 * sum.abs() {
                term *= 2.0 * x * x / (2.0 * n + 1.0);
                sum += term;
                n += 1.0;
            }
            std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum
        };
        let points = (-60_000..=60_000).map(|i| i as f32 * 1e-4);
        let error = |x: f32| (f64::from(erf(x)) - exact(f64::from(x))).abs();
        below(4e-7, points.map(error).fold(0.0, f64::max));
        assert_eq!((erf(f32::INFINITY), erf(-1e30), erf(6.0)), (1.0, -1.0, 1.0));
        assert!(erf(f32::NAN).is_nan());
    }

    #[test]
    fn ln_is_within_its_stated_error() {
        for x in floats() {
            let (found, exact) = (ln(x), f64::from(x).ln());
            if !(exact.is_finite() && exact != 0.0) {
                assert!(found.is_nan() == exact.is_nan(), "ln {x}: {found}");
                assert!(found.is_nan() || found == exact as f32, "ln {x}: {found}");
                continue;
            }
            let error = (f64::from(found) - exact).abs() / exact.abs();
            assert!(error < 3e-7, "ln {x}: {found}, error {error:e}");
        }
    }

    /// Two million floats over all bit patterns: tiny, huge, infinite, NaN, of both signs.
    fn floats() -> impl Iterator<Item = f32> {
        let special = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MAX, f32::MIN];
        special.into_iter().chain((0..=u32::MAX).step_by(2039).map(f32::from_bits))
    }

    /// The largest error of `f` relative to `want`, where that is normal; elsewhere they must agree
    /// to 3e-38.
    fn relative_error(f: impl Fn(f32) -> f32, want: impl Fn(f64) -> f64) -> f64 {
        let mut largest = 0f64;
        for x in floats() {
            let (got, want) = (f(x) as f64, want(x as f64));
            if want.is_nan() {
                assert!(got.is_nan(), "at {x}: {got} for NaN");
            } else if want.abs() > f32::MAX as f64 {
                assert_eq!(got, want.signum() * f64::INFINITY, "at {x}");
            } else if want.abs() < 2.4e-38 {
                assert!((got - want).abs() < 2.4e-38, "at {x}: {got} for {want}");
            } else {
                largest = largest.max(((got - want) / want).abs());
            }
        }
        largest
    }

    #[track_caller]
    fn below(bound: f64, error: f64) {
        assert!(error < bound, "{error:e} is not below {bound:e}");
    }

    #[test]
    fn errors_are_as_stated() {
        below(1.3e-7, relative_error(exp, f64::exp));
        below(2.5e-7, relative_error(tanh, f64::tanh));
        below(2e-7, relative_error(sigmoid, |x| 1.0 / (1.0 + (-x).exp())));
        // Beyond, where a float could still be smaller, it stays where it is.
        let inside = |x: f64| if x.abs() > 43.0 { 0.0 } else { (1.0 / x.cosh()).powi(2) };
        below(1e-5, relative_error(|x| if x.abs() > 43.0 { 0.0 } else { sech2(x) }, inside));
        let wide =
            |x: f64| if x.abs() > 21.0 { 0.0 } else { 3.0 * (1.0 / (2.0 * x).cosh()).powi(2) };
        below(
            1e-5,
            relative_error(|x| if x.abs() > 21.0 { 0.0 } else { bell(3.0, -2.0, x) }, wide),
        );
        assert!(floats().all(|x| x.is_nan() || sech2(x) >= 0.0));
        assert!(floats().all(|x| x.is_nan() || x.abs() <= 43.0 || sech2(x) < 2e-37));
    }

    #[test]
    fn limits_and_signs() {
        assert_eq!(
            (exp(f32::NEG_INFINITY), exp(0.0), exp(f32::INFINITY)),
            (0.0, 1.0, f32::INFINITY)
        );
        assert_eq!((tanh(f32::NEG_INFINITY), tanh(f32::INFINITY)), (-1.0, 1.0));
        assert!(tanh(-0.0).is_sign_negative() && tanh(0.0).is_sign_positive());
        assert_eq!(
            (sigmoid(f32::NEG_INFINITY), sigmoid(0.0), sigmoid(f32::INFINITY)),
            (0.0, 0.5, 1.0)
        );
        assert_eq!((sech2(0.0), sech2(-0.0)), (1.0, 1.0));
    }
}
