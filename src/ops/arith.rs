//! Sums, differences, products and quotients of two values of one shape, or of a value and a
//! number. Nothing is broadcast: who wants a bias a channel says [`Var::add_channels`].

use crate::{Tensor, Var};
use dirnet_engine::Op;
use dirnet_kernels::elementwise::{map, zip};
use std::ops::{Add, Div, Mul, Neg, Sub};

/// An operation on two values of one shape, with the two slopes as functions of both.
#[track_caller]
fn binary<'t>(
    name: &'static str,
    [a, b]: [&Var<'t>; 2],
    f: impl Fn(f32, f32) -> f32 + Sync,
    slopes: impl Fn(&[f32], &[f32], &Tensor, [bool; 2]) -> [Option<Tensor>; 2] + 'static,
) -> Var<'t> {
    let same = a.shape() == b.shape();
    assert!(same, "{name}: shapes differ: {:?} and {:?}", a.shape(), b.shape());
    let y = Tensor::build(a.shape(), |y| zip(a.value(), b.value(), y, f));
    let saved = [a.value().clone(), b.value().clone()];
    a.tape().record(name, y, [a, b], move |dy, wanted| slopes(&saved[0], &saved[1], &dy, wanted))
}

fn with(dy: &Tensor, other: &[f32], f: impl Fn(f32, f32) -> f32 + Sync) -> Tensor {
    Tensor::build(dy.shape(), |dx| zip(dy, other, dx, f))
}

impl<'t> Add for &Var<'t> {
    type Output = Var<'t>;
    /// `a + b`; backward: both get `dy`.
    #[track_caller]
    fn add(self, b: Self) -> Var<'t> {
        let same = self.shape() == b.shape();
        assert!(same, "add: shapes differ: {:?} and {:?}", self.shape(), b.shape());
        let y = Tensor::build(self.shape(), |y| zip(self.value(), b.value(), y, |a, b| a + b));
        self.tape().record("add", y, [self, b], |dy, _| [Some(dy.clone()), Some(dy)])
    }
}

impl<'t> Sub for &Var<'t> {
    type Output = Var<'t>;
    /// `a - b`; backward: `dy` and `-dy`.
    #[track_caller]
    fn sub(self, b: Self) -> Var<'t> {
        let same = self.shape() == b.shape();
        assert!(same, "sub: shapes differ: {:?} and {:?}", self.shape(), b.shape());
        let y = Tensor::build(self.shape(), |y| zip(self.value(), b.value(), y, |a, b| a - b));
        self.tape().record("sub", y, [self, b], |dy, wanted| {
            [wanted[0].then(|| dy.clone()), wanted[1].then(|| dy.map(|dy| -dy))]
        })
    }
}

impl<'t> Mul for &Var<'t> {
    type Output = Var<'t>;
    /// `a · b`, element by element; backward: `b·dy` and `a·dy`.
    #[track_caller]
    fn mul(self, b: Self) -> Var<'t> {
        binary(
            "mul",
            [self, b],
            |a, b| a * b,
            |a, b, dy, wanted| {
                [
                    wanted[0].then(|| with(dy, b, |dy, b| dy * b)),
                    wanted[1].then(|| with(dy, a, |dy, a| dy * a)),
                ]
            },
        )
    }
}

impl<'t> Div for &Var<'t> {
    type Output = Var<'t>;
    /// `a / b`, element by element; backward: `dy/b` and `-dy·a/b²`.
    #[track_caller]
    fn div(self, b: Self) -> Var<'t> {
        binary(
            "div",
            [self, b],
            |a, b| a / b,
            |a, b, dy, wanted| {
                let da = with(dy, b, |dy, b| dy / b);
                let db = wanted[1].then(|| {
                    let ratio = with(&da, a, |da, a| -da * a);
                    with(&ratio, b, |ratio, b| ratio / b)
                });
                [wanted[0].then_some(da), db]
            },
        )
    }
}

impl<'t> Neg for &Var<'t> {
    type Output = Var<'t>;
    /// `-a`
    fn neg(self) -> Var<'t> {
        self * -1.0
    }
}

fn scaled<'t>(x: &Var<'t>, factor: f32) -> Var<'t> {
    let y = Tensor::build(x.shape(), |y| map(x.value(), y, |x| x * factor));
    x.tape().describe(|| Op::Scale { factor });
    x.tape().record("scale", y, [x], move |dy, _| [Some(dy.map(|dy| dy * factor))])
}

impl<'t> Mul<f32> for &Var<'t> {
    type Output = Var<'t>;
    /// Every element times a number.
    fn mul(self, number: f32) -> Var<'t> {
        scaled(self, number)
    }
}

impl<'t> Div<f32> for &Var<'t> {
    type Output = Var<'t>;
    /// Every element divided by a number.
    fn div(self, number: f32) -> Var<'t> {
        scaled(self, number.recip())
    }
}

impl<'t> Add<f32> for &Var<'t> {
    type Output = Var<'t>;
    /// A number added to every element.
    fn add(self, number: f32) -> Var<'t> {
        let y = Tensor::build(self.shape(), |y| map(self.value(), y, |x| x + number));
        self.tape().describe(|| Op::Shift { by: number });
        self.tape().record("shift", y, [self], |dy, _| [Some(dy)])
    }
}

impl<'t> Sub<f32> for &Var<'t> {
    type Output = Var<'t>;
    /// A number subtracted from every element.
    fn sub(self, number: f32) -> Var<'t> {
        self + -number
    }
}

/// The same for operands that are given away, so that expressions need no `&` inside.
macro_rules! owned {
    ($($operator:ident $method:ident),*) => {$(
        impl<'t> $operator<&Var<'t>> for Var<'t> {
            type Output = Var<'t>;
            #[track_caller]
            fn $method(self, b: &Var<'t>) -> Var<'t> {
                (&self).$method(b)
            }
        }
        impl<'t> $operator<Var<'t>> for &Var<'t> {
            type Output = Var<'t>;
            #[track_caller]
            fn $method(self, b: Var<'t>) -> Var<'t> {
                self.$method(&b)
            }
        }
        impl<'t> $operator for Var<'t> {
            type Output = Var<'t>;
            #[track_caller]
            fn $method(self, b: Var<'t>) -> Var<'t> {
                (&self).$method(&b)
            }
        }
        impl<'t> $operator<f32> for Var<'t> {
            type Output = Var<'t>;
            fn $method(self, number: f32) -> Var<'t> {
                (&self).$method(number)
            }
        }
    )*};
}
owned!(Add add, Sub sub, Mul mul, Div div);

impl<'t> Neg for Var<'t> {
    type Output = Var<'t>;
    fn neg(self) -> Var<'t> {
        -&self
    }
}

#[cfg(test)]
mod tests {
    use crate::{Params, Tape, Tensor, gradcheck};

    #[test]
    fn add() {
        gradcheck([&[2, 3], &[2, 3]], |[a, b]| &a + &b);
    }
    #[test]
    fn sub() {
        gradcheck([&[2, 3], &[2, 3]], |[a, b]| &a - &b);
    }
    #[test]
    fn mul() {
        gradcheck([&[2, 3], &[2, 3]], |[a, b]| &a * &b);
        gradcheck([&[2, 3]], |[a]| &a * &a);
    }
    #[test]
    fn div() {
        gradcheck([&[2, 3], &[2, 3]], |[a, b]| a / (b.square() + 0.5));
    }
    #[test]
    fn scale() {
        gradcheck([&[2, 3]], |[a]| -a * 3.0 / 7.0);
    }
    #[test]
    fn shift() {
        gradcheck([&[2, 3]], |[a]| a + 3.0 - 1.0);
    }

    #[test]
    #[should_panic(expected = "mul: shapes differ: [2] and [3]")]
    fn different_shapes_are_refused() {
        let params = Params::new();
        let tape = Tape::eval(&params);
        let _ = &tape.constant(Tensor::zeros([2])) * &tape.constant(Tensor::zeros([3]));
    }
}
