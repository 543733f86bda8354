//! What stands in for the derivative of `sign` on the way back: the curves, family by family.
//!
//! The derivative of `sign` is zero wherever it exists, so nothing would ever learn. An estimator
//! puts the slope of a soft curve in its place. The built-in curves stand in this folder, a family a
//! file, each with the same page and an entry with rows of known values at the foot of its file;
//! [`all`] walks them. To add one, write its page and its entry; to bring one's own, implement
//! [`Estimator`] anywhere.

mod bell;
mod expression;
mod formula;
mod periodic;
mod polynomial;
mod power;
mod straight;
mod tanh;

pub use bell::{Gaussian, SwishSign};
pub use expression::Expression;
pub use periodic::{Fda, FourierSum, HalfCosine};
pub use polynomial::{ApproxSign, Parabola, Rbnn};
pub use power::{Power, Reste};
pub use straight::{Identity, Ste};
pub use tanh::{Dsq, Ede, Steepening, Tanh};

use super::dte;
use crate::error::unknown;
use crate::{Error, Spec, spec::Options};
use dirnet_kernels::elementwise;
use std::borrow::Cow;
use std::cell::LazyCell;
use std::fmt::{self, Debug};
use std::ops::Deref;
use std::sync::Arc;

/// What stands in for `sign` on the way back.
///
/// A curve of one's own, in full:
///
/// ```
/// use dirnet::{Estimator, check_estimator};
/// use std::f32::consts::FRAC_PI_2;
///
/// #[derive(Debug)]
/// struct HalfCosine;
///
/// impl Estimator for HalfCosine {
///     fn name(&self) -> &str { "half-cosine" }
///     fn soft(&self, x: f32) -> f32 { (FRAC_PI_2 * x.clamp(-1.0, 1.0)).sin() }
///     fn slope(&self, x: f32) -> f32 {
///         if x.abs() <= 1.0 { FRAC_PI_2 * (FRAC_PI_2 * x).cos() } else { 0.0 }
///     }
/// }
///
/// check_estimator(&HalfCosine); // the slope is the derivative of the soft curve
/// ```
pub trait Estimator: Debug + Send + Sync + 'static {
    /// As it is chosen and printed. One made by [`estimator`](fn@estimator) also tells the options that
    /// are not the default: `ste(clip=2)`.
    fn name(&self) -> &str;

    /// The smooth curve that is meant.
    fn soft(&self, x: f32) -> f32;

    /// Its derivative: what the gradient of the sign is multiplied with.
    fn slope(&self, x: f32) -> f32;

    /// The curve for a tensor with these elements at this point of training, from 0 to 1; `None`
    /// means this very one. For schedules, and for curves that look at the distribution. Of a large
    /// tensor it is shown some four thousand elements, evenly spaced.
    fn fit(&self, x: &Elements<'_>, progress: f32) -> Option<Arc<dyn Estimator>> {
        let _ = (x, progress);
        None
    }

    /// Whether each channel is fitted by itself: the output channels of weights, axis 1 of
    /// activations.
    fn by_channel(&self) -> bool {
        false
    }

    /// `Some((limit, slope))` where the slope is that constant for `|x| <= limit` and zero beyond:
    /// then one bit an element is all that need be saved, and none if the limit is infinite.
    fn window(&self) -> Option<(f32, f32)> {
        None
    }

    /// `dy` becomes `slope(x) · dy`; provided, and compiled anew for each curve, so that the call into
    /// it is paid once for many elements.
    fn backward(&self, x: &[f32], dy: &mut [f32]) {
        elementwise::zip_in_place(dy, x, |dy, x| self.slope(x) * dy);
    }
}

/// The elements that a curve is fitted to. They read as a slice, and are gathered when somebody first looks:
/// a schedule never does, and elements that lie far apart in memory are slow to fetch.
///
/// ```
/// use dirnet::binarize::{Dte, Ede, Elements, Estimator};
/// let unseen = Elements::when_seen(|| unreachable!("EDE goes by progress alone"));
/// assert!(Ede::default().fit(&unseen, 0.5).is_some());
/// let few = Elements::from(&[0.1, -2.0]);
/// assert!(Dte::default().fit(&few, 0.5).is_some());
/// ```
pub struct Elements<'a>(LazyCell<Cow<'a, [f32]>, Gather<'a>>);

type Gather<'a> = Box<dyn FnOnce() -> Cow<'a, [f32]> + 'a>;

impl<'a> Elements<'a> {
    /// What `gather` gives, which is called at most once.
    pub fn when_seen(gather: impl FnOnce() -> Vec<f32> + 'a) -> Self {
        Elements(LazyCell::new(Box::new(|| gather().into())))
    }
}

impl<'a, T: AsRef<[f32]> + ?Sized> From<&'a T> for Elements<'a> {
    fn from(x: &'a T) -> Self {
        Elements(LazyCell::new(Box::new(|| x.as_ref().into())))
    }
}

impl Deref for Elements<'_> {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl Debug for Elements<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Elements").field(&&**self).finish()
    }
}

impl Estimator for Arc<dyn Estimator> {
    fn name(&self) -> &str {
        (**self).name()
    }
    fn soft(&self, x: f32) -> f32 {
        (**self).soft(x)
    }
    fn slope(&self, x: f32) -> f32 {
        (**self).slope(x)
    }
    fn fit(&self, x: &Elements<'_>, progress: f32) -> Option<Arc<dyn Estimator>> {
        (**self).fit(x, progress)
    }
    fn by_channel(&self) -> bool {
        (**self).by_channel()
    }
    fn window(&self) -> Option<(f32, f32)> {
        (**self).window()
    }
    fn backward(&self, x: &[f32], dy: &mut [f32]) {
        (**self).backward(x, dy);
    }
}

/// A built-in estimator: its name, how to make it, and rows of known values.
#[derive(Debug)]
pub struct Entry {
    /// As it is chosen.
    pub name: &'static str,
    /// Makes one from options such as `clip=1`.
    pub make: fn(&mut Options<'_>) -> Result<Arc<dyn Estimator>, Error>,
    /// Progress of training, input, and the slope there at the default options.
    pub known: &'static [(f32, f32, f32)],
}

/// All built-in estimators, family by family. Tests, the command's names and its curves walk them.
pub fn all() -> impl Iterator<Item = &'static Entry> {
    let families: [&'static [Entry]; 7] = [
        straight::ENTRIES,
        polynomial::ENTRIES,
        tanh::ENTRIES,
        dte::ENTRIES,
        bell::ENTRIES,
        periodic::ENTRIES,
        power::ENTRIES,
    ];
    families.into_iter().flatten()
}

/// The estimator that a text such as `ste(clip=1)` names, or that an [`Expression`] such as
/// `soft = tanh(t*x)/t; t = 0.1..10` spells out.
///
/// ```
/// let e = dirnet::binarize::estimator("ste(clip=0.5)")?;
/// assert_eq!((e.slope(0.4), e.slope(0.6)), (1.0, 0.0));
/// # Ok::<(), dirnet::Error>(())
/// ```
///
/// # Errors
/// If there is none of that name, or an option is unknown or of a wrong value, or an expression does
/// not parse or is no curve to learn from.
pub fn estimator(text: &str) -> Result<Arc<dyn Estimator>, Error> {
    if text.trim_start().strip_prefix("soft").is_some_and(|rest| rest.trim_start().starts_with('='))
    {
        return Ok(Arc::new(Expression::parse(text)?));
    }
    let spec: Spec = text.parse()?;
    let Some(entry) = all().find(|entry| entry.name == spec.name) else {
        let names: Vec<_> = all().map(|entry| entry.name).collect();
        return Err(unknown("estimator", &spec.name, &names));
    };
    let make = |spec: &Spec| {
        let mut options = Options::of(spec);
        let made = (entry.make)(&mut options)?;
        options.finish().map(|()| made)
    };
    let made = make(&spec)?;
    // Of the options, those that change something.
    let mut told = Spec { options: Vec::new(), plus: Vec::new(), ..spec.clone() };
    for at in 0..spec.options.len() {
        let mut without = spec.clone();
        without.options.remove(at);
        if !make(&without).is_ok_and(|other| format!("{other:?}") == format!("{made:?}")) {
            told.options.push(spec.options[at].clone());
        }
    }
    match told.options.is_empty() {
        true => Ok(made),
        false => Ok(Arc::new(Named { name: told.to_string(), estimator: made })),
    }
}

/// An estimator under its full name.
#[derive(Debug)]
struct Named {
    name: String,
    estimator: Arc<dyn Estimator>,
}

impl Estimator for Named {
    fn name(&self) -> &str {
        &self.name
    }
    fn soft(&self, x: f32) -> f32 {
        self.estimator.soft(x)
    }
    fn slope(&self, x: f32) -> f32 {
        self.estimator.slope(x)
    }
    fn fit(&self, x: &Elements<'_>, progress: f32) -> Option<Arc<dyn Estimator>> {
        self.estimator.fit(x, progress)
    }
    fn by_channel(&self) -> bool {
        self.estimator.by_channel()
    }
    fn window(&self) -> Option<(f32, f32)> {
        self.estimator.window()
    }
    fn backward(&self, x: &[f32], dy: &mut [f32]) {
        self.estimator.backward(x, dy);
    }
}

/// Checks that `slope` is the derivative of `soft`, at many points and through all of training.
///
/// # Panics
/// If it is not, or if a [`window`](Estimator::window) says otherwise than the slope; the message
/// names the point and both numbers.
#[track_caller]
pub fn check_estimator(estimator: &(impl Estimator + ?Sized)) {
    const H: f32 = 1e-3;
    // Offset, so that no point stands on a kink at a round number.
    let points: Vec<f32> = (-300..300).map(|i| i as f32 / 100.0 + 0.004_3).collect();
    for progress in [0.0, 0.25, 0.5, 0.75, 0.99] {
        let fitted = estimator.fit(&Elements::from(&points), progress);
        let soft = |x| fitted.as_ref().map_or_else(|| estimator.soft(x), |e| e.soft(x));
        let slope = |x| fitted.as_ref().map_or_else(|| estimator.slope(x), |e| e.slope(x));
        let steepest = points.iter().map(|&x| slope(x).abs()).fold(0.0, f32::max);
        for &x in &points {
            let there = (soft(x + H) - soft(x - H)) / (2.0 * H);
            let error = (there - slope(x)).abs();
            assert!(
                error <= 5e-3 * steepest.max(1.0),
                "{}: at x = {x}, progress {progress}, soft rises by {there} but slope is {}",
                estimator.name(),
                slope(x)
            );
        }
        let window = fitted.as_ref().map_or_else(|| estimator.window(), |e| e.window());
        if let Some((limit, inside)) = window {
            for &x in &points {
                let expected = if x.abs() <= limit { inside } else { 0.0 };
                assert_eq!(slope(x), expected, "{}: window at x = {x}", estimator.name());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slope_is_the_derivative_of_its_curve() {
        for entry in all() {
            check_estimator(&estimator(entry.name).unwrap());
        }
        check_estimator(&Tanh::steep(3.0));
    }

    #[test]
    fn known_values_hold() {
        // Spread out enough that the distribution-sensitive bound does not bind here.
        let elements: Vec<f32> = (0..1000).map(|i| i as f32 / 500.0 - 1.0).collect();
        for entry in all() {
            let estimator = estimator(entry.name).unwrap();
            for &(progress, x, slope) in entry.known {
                let found = match estimator.fit(&Elements::from(&elements), progress) {
                    Some(fitted) => fitted.slope(x),
                    None => estimator.slope(x),
                };
                assert!(
                    (found - slope).abs() <= 1e-4 * slope.max(1.0),
                    "{} at {x}, progress {progress}: {found}, expected {slope}",
                    entry.name
                );
            }
        }
    }

    #[test]
    fn extreme_inputs_have_finite_slopes() {
        let elements = [0.0, -0.0, 1e-40, -1e-40, 1e30, -1e30, f32::MAX, f32::MIN];
        for entry in all() {
            let made = estimator(entry.name).unwrap();
            for progress in [0.0, 0.5, 1.0] {
                let e =
                    made.fit(&Elements::from(&elements), progress).unwrap_or_else(|| made.clone());
                for x in elements {
                    assert!(e.slope(x).is_finite(), "{} at {x}: {}", entry.name, e.slope(x));
                }
            }
        }
    }

    #[test]
    fn names_are_their_own() {
        for entry in all() {
            assert_eq!(estimator(entry.name).unwrap().name(), entry.name);
        }
    }

    #[test]
    fn names_tell_the_options_that_change_something() {
        for (text, name) in [
            ("ste(clip=2)", "ste(clip=2)"),
            ("ste( clip = 1.0 )", "ste"),
            ("dte(rule=a, tau=1, eps=0.2)", "dte(rule=a,eps=0.2)"),
            ("dte(rule=b,t_min=0.1)", "dte"),
            ("rbnn(part=activations)", "rbnn(part=activations)"),
        ] {
            let made = estimator(text).unwrap();
            assert_eq!(made.name(), name);
            let again = estimator(name).unwrap();
            assert_eq!(again.name(), name);
            for (progress, x) in [(0.0, 1.5), (0.5, 0.7), (1.0, 0.2)] {
                let slope = |e: &Arc<dyn Estimator>| {
                    e.fit(&Elements::from(&[1.0; 9]), progress)
                        .unwrap_or_else(|| e.clone())
                        .slope(x)
                };
                assert_eq!(slope(&made), slope(&again), "{text}");
            }
        }
    }

    #[test]
    fn unknown_names_and_options_are_refused_with_a_suggestion() {
        let message = estimator("stee").unwrap_err().to_string();
        assert!(message.contains("did you mean \"ste\"?"), "{message}");
        let message = estimator("ste(clop=1)").unwrap_err().to_string();
        assert!(message.contains("did you mean \"clip\"?"), "{message}");
        let message = estimator("dte(rule=c)").unwrap_err().to_string();
        assert!(message.contains("known: a, b"), "{message}");
    }

    #[test]
    #[should_panic(expected = "crooked: at x =")]
    fn a_slope_that_is_not_the_derivative_is_caught() {
        #[derive(Debug)]
        struct Crooked;
        impl Estimator for Crooked {
            fn name(&self) -> &str {
                "crooked"
            }
            fn soft(&self, x: f32) -> f32 {
                x.clamp(-1.0, 1.0)
            }
            fn slope(&self, x: f32) -> f32 {
                if x.abs() <= 1.0 { 1.1 } else { 0.0 }
            }
        }
        check_estimator(&Crooked);
    }
}
