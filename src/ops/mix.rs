//! A weighted sum whose weights are values themselves.

use crate::{Tensor, Var};
use dirnet_kernels::{elementwise, par, reduce};

/// Values of one shape, each times a weight, added up in their order.
///
/// ```text
/// forward    y = Σ_k w[k] · x_k
/// backward   dx_k = w[k] · dy,  dw[k] = Σ dy · x_k
/// ```
///
/// ```
/// use dirnet::{Params, Tape, ops::mix};
/// let params = Params::new();
/// let tape = Tape::eval(&params);
/// let (a, b) = (tape.constant([1.0, 2.0]), tape.constant([3.0, 5.0]));
/// assert_eq!(**mix(&[&a, &b], &tape.constant([2.0, -1.0])).value(), [-1.0, -1.0]);
/// ```
///
/// # Panics
/// If there is none, their shapes differ, or there is not one weight each.
#[track_caller]
pub fn mix<'t>(parts: &[&Var<'t>], weights: &Var<'t>) -> Var<'t> {
    let first = parts.first().expect("mix: of at least one value");
    for part in parts {
        let same = part.shape() == first.shape();
        assert!(same, "mix: shapes differ: {:?} and {:?}", first.shape(), part.shape());
    }
    assert_eq!(weights.shape(), [parts.len()], "mix: one weight a value");
    let (x, w) = (parts.iter().map(|part| part.value().clone()), weights.value().clone());
    let x: Vec<Tensor> = x.collect();
    let y = Tensor::build(first.shape(), |y| {
        par::chunks(y, par::GRAIN, |i, y| {
            y.fill(0.0);
            for (x, w) in x.iter().zip(&*w) {
                y.iter_mut().zip(&x[i * par::GRAIN..]).for_each(|(y, x)| *y += w * x);
            }
        });
    });
    let parents: Vec<&Var<'t>> = parts.iter().copied().chain([weights]).collect();
    first.tape().record_many("mix", y, &parents, move |dy, wanted| {
        let (of_weights, of_parts) = wanted.split_last().expect("the weights come last");
        let dx = w.iter().zip(of_parts).map(|(w, wanted)| {
            wanted.then(|| Tensor::build(dy.shape(), |dx| elementwise::map(&dy, dx, |dy| w * dy)))
        });
        let mut grads: Vec<_> = dx.collect();
        grads.push(of_weights.then(|| {
            Tensor::build([x.len()], |dw| {
                dw.iter_mut().zip(&x).for_each(|(dw, x)| *dw = reduce::dot(&dy, x) as f32);
            })
        }));
        grads
    })
}

#[cfg(test)]
mod tests {
    use super::mix as weighted;
    use crate::gradcheck;

    #[test]
    fn mix() {
        gradcheck([&[2, 3], &[2, 3], &[3]], |[a, b, w]| weighted(&[&a, &b, &a], &w).square());
    }
}
