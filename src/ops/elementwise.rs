//! Operations that look at one element at a time: each is its function and its slope.

use crate::tensor::Held;
use crate::{Tensor, Var};
use dirnet_engine::Op;
use dirnet_kernels::{bits::Mask, bits::masked, elementwise, math};

impl<'t> Var<'t> {
    /// An elementwise operation whose slope is told from its input, which is what it saves.
    ///
    /// ```
    /// # use dirnet::{Params, Tape};
    /// # let params = Params::new();
    /// let tape = Tape::train(&params);
    /// let x = tape.variable([3.0]);
    /// let y = x.map_from_input("cube", |x| x * x * x, |x| 3.0 * x * x);
    /// assert_eq!(y.backward().wrt(&x).unwrap()[0], 27.0);
    /// ```
    pub fn map_from_input(
        &self,
        name: &'static str,
        f: impl Fn(f32) -> f32 + Sync,
        slope: impl Fn(f32) -> f32 + Sync + 'static,
    ) -> Var<'t> {
        let x = self.value().clone();
        let y = Tensor::build(self.shape(), |y| elementwise::map(&x, y, f));
        self.tape().record(name, y, [self], move |dy, _| [Some(times_slope(dy, &x, slope))])
    }

    /// An elementwise operation whose slope is told from its output, which is what it saves.
    pub fn map_from_output(
        &self,
        name: &'static str,
        f: impl Fn(f32) -> f32 + Sync,
        slope: impl Fn(f32) -> f32 + Sync + 'static,
    ) -> Var<'t> {
        let y = Tensor::build(self.shape(), |y| elementwise::map(self.value(), y, f));
        let saved = y.clone();
        self.tape().record(name, y, [self], move |dy, _| [Some(times_slope(dy, &saved, slope))])
    }

    /// An elementwise operation whose slope is 1 inside and 0 outside: it saves one bit an element.
    pub fn map_inside(
        &self,
        name: &'static str,
        f: impl Fn(f32) -> f32 + Sync,
        inside: impl Fn(f32) -> bool + Sync,
    ) -> Var<'t> {
        let y = Tensor::build(self.shape(), |y| elementwise::map(self.value(), y, f));
        let mask = self.wants_grad().then(|| Held::by(Mask::of(self.value(), inside), Mask::bytes));
        self.tape().record(name, y, [self], move |dy, _| {
            let mask = mask.expect("made, since a gradient was wanted");
            [Some(Tensor::build(dy.shape(), |dx| masked(&mask, 1.0, &dy, dx)))]
        })
    }

    /// `max(x, 0)`; slope 1 where `x > 0`, else 0.
    pub fn relu(&self) -> Var<'t> {
        self.map_from_output("relu", |x| x.max(0.0), |y| f32::from(u8::from(y > 0.0)))
    }
    /// `x` clamped to [-1, 1]; slope 1 strictly inside, else 0.
    ///
    /// What stands before a sign in a binary network: unlike after a `relu`, both signs occur.
    pub fn hardtanh(&self) -> Var<'t> {
        self.map_inside("hardtanh", |x| x.clamp(-1.0, 1.0), |x| x.abs() < 1.0)
    }
    /// `x` clamped to `[low, high]`; slope 1 inside, bounds included, else 0.
    ///
    /// # Panics
    /// If `low > high`.
    #[track_caller]
    pub fn clamp(&self, low: f32, high: f32) -> Var<'t> {
        assert!(low <= high, "clamp: {low} is above {high}");
        self.tape().describe(|| Op::Clamp { low, high });
        self.map_inside("clamp", move |x| x.clamp(low, high), move |x| low <= x && x <= high)
    }
    /// `max(x, 0) + slope · min(x, 0)`.
    pub fn leaky_relu(&self, slope: f32) -> Var<'t> {
        let pick = move |x: f32, below| if x > 0.0 { 1.0 } else { below };
        self.map_from_input("leaky_relu", move |x| x * pick(x, slope), move |x| pick(x, slope))
    }
    /// `1 / (1 + exp(-x))`
    pub fn sigmoid(&self) -> Var<'t> {
        self.map_from_output("sigmoid", math::sigmoid, |y| y * (1.0 - y))
    }
    /// The hyperbolic tangent.
    pub fn tanh(&self) -> Var<'t> {
        self.map_from_output("tanh", math::tanh, |y| 1.0 - y * y)
    }
    /// `x · sigmoid(x)`, also called SiLU (Ramachandran et al., 2017, arXiv 1710.05941).
    pub fn swish(&self) -> Var<'t> {
        self.map_from_input(
            "swish",
            |x| x * math::sigmoid(x),
            |x| {
                let s = math::sigmoid(x);
                s * (1.0 + x * (1.0 - s))
            },
        )
    }
    /// `e` to the power of `x`.
    pub fn exp(&self) -> Var<'t> {
        self.map_from_output("exp", math::exp, |y| y)
    }
    /// The natural logarithm.
    pub fn ln(&self) -> Var<'t> {
        self.map_from_input("ln", f32::ln, |x| 1.0 / x)
    }
    /// The square root.
    pub fn sqrt(&self) -> Var<'t> {
        self.map_from_output("sqrt", f32::sqrt, |y| 0.5 / y)
    }
    /// `x²`
    pub fn square(&self) -> Var<'t> {
        self.map_from_input("square", |x| x * x, |x| 2.0 * x)
    }
    /// `|x|`; slope 0 at 0.
    pub fn abs(&self) -> Var<'t> {
        let slope = |x: f32| if x == 0.0 { 0.0 } else { x.signum() };
        self.map_from_input("abs", f32::abs, slope)
    }
}

fn times_slope(mut dy: Tensor, at: &[f32], slope: impl Fn(f32) -> f32 + Sync) -> Tensor {
    if dy.is_shared() {
        Tensor::build(dy.shape(), |dx| elementwise::zip(&dy, at, dx, |dy, x| dy * slope(x)))
    } else {
        elementwise::zip_in_place(dy.data_mut(), at, |dy, x| dy * slope(x));
        dy
    }
}

#[cfg(test)]
mod tests {
    use crate::{Tensor, gradcheck, gradcheck_at};

    #[test]
    fn relu() {
        gradcheck([&[3, 5]], |[x]| x.relu());
    }
    #[test]
    fn hardtanh() {
        gradcheck_at([Tensor::from([-2.0, -0.9, 0.0, 0.5, 0.95, 1.4])], |[x]| x.hardtanh());
    }
    #[test]
    fn clamp() {
        gradcheck_at([Tensor::from([-2.0, -0.9, 0.0, 0.5, 0.95, 1.4])], |[x]| x.clamp(-0.5, 1.2));
    }
    #[test]
    fn leaky_relu() {
        gradcheck([&[3, 5]], |[x]| x.leaky_relu(0.1));
    }
    #[test]
    fn sigmoid() {
        gradcheck([&[3, 5]], |[x]| x.sigmoid());
    }
    #[test]
    fn tanh() {
        gradcheck([&[3, 5]], |[x]| x.tanh());
    }
    #[test]
    fn swish() {
        gradcheck([&[3, 5]], |[x]| x.swish());
    }
    #[test]
    fn exp() {
        gradcheck([&[3, 5]], |[x]| x.exp());
    }
    #[test]
    fn ln() {
        gradcheck_at([Tensor::from([0.2, 1.0, 3.0])], |[x]| x.ln());
    }
    #[test]
    fn sqrt() {
        gradcheck_at([Tensor::from([0.2, 1.0, 3.0])], |[x]| x.sqrt());
    }
    #[test]
    fn square() {
        gradcheck([&[3, 5]], |[x]| x.square());
    }
    #[test]
    fn abs() {
        gradcheck([&[3, 5]], |[x]| x.abs());
    }
}
