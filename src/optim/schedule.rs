//! How the learning rate changes in the course of training.

use std::f32::consts::PI;

/// A factor on the learning rate, as a function of the progress of training from 0 to 1.
///
/// ```
/// use dirnet::optim::Schedule;
/// let schedule = Schedule::cosine().warmup(0.1);
/// assert_eq!(schedule.factor(0.05), 0.5);
/// assert_eq!(schedule.factor(0.1), 1.0);
/// assert!((schedule.factor(0.55) - 0.5).abs() < 1e-6);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    curve: Curve,
    warmup: f32,
}

/// The course after the warm-up.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Curve {
    /// 1 throughout.
    #[default]
    Constant,
    /// `(1 + cos(π·p)) / 2`: from 1 to 0 (Loshchilov and Hutter, 2016, arXiv 1608.03983).
    Cosine,
    /// Multiplied by `factor` at each of these moments.
    Steps {
        /// Moments of training, from 0 to 1.
        at: Vec<f32>,
        /// What each multiplies with.
        factor: f32,
    },
}

impl Schedule {
    /// No change at all.
    pub fn constant() -> Self {
        Schedule::default()
    }
    /// Down to zero along half a cosine.
    pub fn cosine() -> Self {
        Schedule { curve: Curve::Cosine, warmup: 0.0 }
    }
    /// Times `factor` at each of these moments of training, from 0 to 1.
    pub fn steps(at: impl Into<Vec<f32>>, factor: f32) -> Self {
        Schedule { curve: Curve::Steps { at: at.into(), factor }, warmup: 0.0 }
    }
    /// Rises in a line from 0 to 1 over the first `share` of training; the rest of the schedule
    /// runs in what is left.
    pub fn warmup(self, share: f32) -> Self {
        Schedule { warmup: share, ..self }
    }

    /// The factor at a moment of training.
    pub fn factor(&self, progress: f32) -> f32 {
        if progress < self.warmup {
            return progress / self.warmup;
        }
        let rest = 1.0 - self.warmup;
        let p = if rest > 0.0 { ((progress - self.warmup) / rest).clamp(0.0, 1.0) } else { 1.0 };
        match &self.curve {
            Curve::Constant => 1.0,
            Curve::Cosine => 0.5 * (1.0 + (PI * p).cos()),
            Curve::Steps { at, factor } => {
                factor.powi(at.iter().filter(|&&at| progress >= at).count() as i32)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shapes_are_what_they_are_called() {
        let cosine = Schedule::cosine();
        assert_eq!((cosine.factor(0.0), cosine.factor(1.0)), (1.0, 0.0));
        assert!((cosine.factor(0.5) - 0.5).abs() < 1e-6);
        let steps = Schedule::steps([0.5, 0.75], 0.1);
        assert_eq!((steps.factor(0.49), steps.factor(0.5)), (1.0, 0.1));
        assert!((steps.factor(0.9) - 0.01).abs() < 1e-8);
        assert_eq!(Schedule::constant().warmup(0.2).factor(0.1), 0.5);
    }
}
