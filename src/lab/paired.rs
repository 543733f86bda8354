//! What can be said of the difference between two methods that were run with the same seeds.

use std::f64::consts::FRAC_PI_2;

/// The mean of some numbers.
pub fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// Their standard deviation, `√(Σ (x - mean)² / (n - 1))`; `None` for less than two.
pub fn std(x: &[f64]) -> Option<f64> {
    let (n, mean) = (x.len() as f64, mean(x));
    (n > 1.0).then(|| (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt())
}

/// A mean difference between pairs, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// The mean of `a - b` over the pairs.
    pub difference: f64,
    /// Its 95 % interval; `None` for less than two pairs.
    pub interval: Option<[f64; 2]>,
}

impl Paired {
    /// Of two methods' results, seed by seed: `mean ± t · std / √n` over the differences, with
    /// Student's `t` of `n - 1` degrees of freedom ("Student", 1908).
    ///
    /// What a seed does to both, such as an easy order of the images, cancels out in a difference, so
    /// this interval is narrower than that of two means where seeds matter to both alike.
    ///
    /// ```
    /// use dirnet::lab::Paired;
    /// let found = Paired::of(&[0.90, 0.92, 0.91], &[0.88, 0.91, 0.88]);
    /// assert!((found.difference - 0.02).abs() < 1e-9);
    /// let [low, high] = found.interval.unwrap();
    /// assert!((low + 0.00484).abs() < 1e-5 && (high - 0.04484).abs() < 1e-5);
    /// ```
    ///
    /// # Panics
    /// If there is no pair, or a partner is missing.
    #[track_caller]
    pub fn of(a: &[f64], b: &[f64]) -> Self {
        assert!(!a.is_empty() && a.len() == b.len(), "paired: {} and {}", a.len(), b.len());
        let apart: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
        let difference = mean(&apart);
        let interval = std(&apart).map(|std| {
            let half = student_t(apart.len() - 1) * std / (apart.len() as f64).sqrt();
            [difference - half, difference + half]
        });
        Paired { difference, interval }
    }
}

/// The number that Student's `t` of so many degrees of freedom exceeds, in size, once in twenty times.
///
/// With `t = √df · tan θ`, the share within `±t` is a finite sum of powers of `cos θ` (Abramowitz and
/// Stegun, 1964, 26.7.3 and 26.7.4); `θ` is found by bisection.
///
/// # Panics
/// If there is no degree of freedom.
#[track_caller]
pub fn student_t(df: usize) -> f64 {
    assert!(df > 0, "student_t: no degree of freedom");
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if share_within(middle, df) < 0.95 { low = middle } else { high = middle }
    }
    (df as f64).sqrt() * low.tan()
}

fn share_within(theta: f64, df: usize) -> f64 {
    let (sin, cos) = theta.sin_cos();
    // df odd: cos θ (1 + 2/3 cos² θ + 2·4/(3·5) cos⁴ θ + …); even: 1 + 1/2 cos² θ + 1·3/(2·4) cos⁴ θ + …
    let odd = df % 2;
    let (mut term, mut sum) = (if odd == 1 { cos } else { 1.0 }, 0.0);
    for i in 0..df / 2 {
        sum += term;
        let power = (odd + 2 * i) as f64;
        term *= cos * cos * (power + 1.0) / (power + 2.0);
    }
    if odd == 1 { (theta + sin * sum) / FRAC_PI_2 } else { sin * sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The column 0.975 of the tables in any textbook.
    #[test]
    fn students_t_is_that_of_the_tables() {
        for (df, t) in [
            (1, 12.706),
            (2, 4.303),
            (3, 3.182),
            (4, 2.776),
            (5, 2.571),
            (9, 2.262),
            (10, 2.228),
            (30, 2.042),
            (120, 1.980),
        ] {
            assert!((student_t(df) - t).abs() < 6e-4, "{df}: {}", student_t(df));
        }
    }

    /// Differences 1, 2, 3, 6: mean 3, squares about it 4 + 1 + 0 + 9 = 14, deviation √(14/3) =
    /// 2.1602, over √4 1.0801, times 3.182 is 3.437.
    #[test]
    fn an_interval_by_hand() {
        let Paired { difference, interval } =
            Paired::of(&[11.0, 22.0, 33.0, 46.0], &[10.0, 20.0, 30.0, 40.0]);
        let [low, high] = interval.unwrap();
        assert_eq!(difference, 3.0);
        assert!((low + 0.437).abs() < 1e-3 && (high - 6.437).abs() < 1e-3, "{low} to {high}");
        assert_eq!(Paired::of(&[2.0], &[1.5]), Paired { difference: 0.5, interval: None });
        assert_eq!(std(&[1.0, 3.0]), Some(2f64.sqrt()));
    }

    /// A method beside itself: no difference, and no doubt about it.
    #[test]
    fn equals_do_not_differ() {
        let same = Paired::of(&[0.5, 0.7, 0.9], &[0.5, 0.7, 0.9]);
        assert_eq!(same, Paired { difference: 0.0, interval: Some([0.0, 0.0]) });
    }
}
