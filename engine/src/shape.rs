//! The shape rules of operations: what keeps a graph from a file honest.

use crate::limits::{MOST, STEP, TERMS, TERMS_OF_FLOATS};
use crate::op::{Op, Then};
use dirnet_kernels::{ConvGeom, PoolGeom};

/// The most axes of a shape.
pub(crate) const AXES: usize = 8;

/// How many numbers a shape has.
///
/// # Errors
/// If it has none, more than [`MOST`], or more than 8 axes.
pub(crate) fn len(shape: &[usize]) -> Result<usize, String> {
    if shape.len() > AXES {
        return Err(format!("has {} axes, expected at most {AXES}", shape.len()));
    }
    let product = shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n));
    match product {
        Some(n) if (1..=MOST).contains(&n) => Ok(n),
        _ => Err(format!("has the shape {shape:?}, expected 1 to {MOST} numbers")),
    }
}

/// The shape of what `op` makes of inputs of these shapes, being `said` to be of another perhaps. All are
/// of bearable size.
///
/// # Errors
/// If they do not fit; the message gives the shapes.
pub(crate) fn output(op: &Op, x: &[&[usize]], said: &[usize]) -> Result<Vec<usize>, String> {
    let count = |least: usize, most: usize| match (least..=most).contains(&x.len()) {
        true => Ok(()),
        false if least == most => Err(format!("has {} inputs, expected {least}", x.len())),
        false => Err(format!("has {} inputs, expected {least} to {most}", x.len())),
    };
    match *op {
        Op::Input => {
            count(0, 0)?;
            Ok(said.to_vec())
        }
        Op::Conv2d(how) => {
            count(2, 2)?;
            bearable(&[how.stride, how.pad, how.dilation])?;
            let g = ConvGeom::try_new(x[0], x[1], how).map_err(|e| e.to_string())?;
            Ok(g.y().to_vec())
        }
        Op::BinConv2d { how, then, .. } => {
            count(3, 6)?;
            bearable(&[how.stride, how.pad, how.dilation])?;
            let g = ConvGeom::try_new(x[0], x[1], how).map_err(|e| e.to_string())?;
            terms(g.taps(), TERMS)?;
            let y = g.y().to_vec();
            match then {
                Then::Scale | Then::Threshold => count(3, 3)?,
                Then::Affine { .. } => count(4, 5)?,
                Then::ScaledAffine { .. } => count(5, 6)?,
            }
            let numbers = then.numbers();
            per_channel(&y, &x[2..2 + numbers])?;
            residual(y, x.get(2 + numbers))
        }
        Op::Linear | Op::BinLinear => {
            let scaled = *op == Op::BinLinear;
            let inputs = if scaled { 3 } else { 2 };
            count(inputs, inputs)?;
            let (&[n, k], &[o, inner]) = (x[0], x[1]) else {
                return Err(format!("takes two matrices, not {:?} and {:?}", x[0], x[1]));
            };
            if k != inner {
                return Err(format!("has inner sizes {k} and {inner}"));
            }
            let y = vec![n, o];
            terms(k, TERMS_OF_FLOATS)?;
            per_channel(&y, &x[2..])?;
            Ok(y)
        }
        Op::Affine { .. } => {
            count(3, 4)?;
            per_channel(x[0], &x[1..3])?;
            residual(x[0].to_vec(), x.get(3))
        }
        Op::AddChannels | Op::MulChannels | Op::Prelu => {
            count(2, 2)?;
            per_channel(x[0], &x[1..])?;
            Ok(x[0].to_vec())
        }
        Op::Rprelu | Op::Maxout => {
            let numbers = if *op == Op::Rprelu { 3 } else { 2 };
            count(1 + numbers, 1 + numbers)?;
            per_channel(x[0], &x[1..])?;
            Ok(x[0].to_vec())
        }
        Op::MulPixels => {
            count(2, 2)?;
            match (images(x[0])?, images(x[1])?) {
                ([n, _, h, w], [m, 1, a, b]) if [n, h, w] == [m, a, b] => Ok(x[0].to_vec()),
                _ => Err(format!("has numbers {:?} for the pixels of {:?}", x[1], x[0])),
            }
        }
        Op::Add | Op::Sub | Op::Mul => {
            count(2, 2)?;
            residual(x[0].to_vec(), Some(&x[1]))
        }
        Op::Scale { factor } => {
            count(1, 1)?;
            finite(factor)?;
            Ok(x[0].to_vec())
        }
        Op::Shift { by } => {
            count(1, 1)?;
            finite(by)?;
            Ok(x[0].to_vec())
        }
        Op::Relu
        | Op::Hardtanh
        | Op::Sigmoid
        | Op::Tanh
        | Op::Swish
        | Op::Abs
        | Op::Binarize
        | Op::Standardize => {
            count(1, 1)?;
            Ok(x[0].to_vec())
        }
        Op::Clamp { low, high } => {
            count(1, 1)?;
            finite(low)?;
            finite(high)?;
            match low <= high {
                true => Ok(x[0].to_vec()),
                false => Err(format!("clamps from {low} to {high}, expected no less")),
            }
        }
        Op::Reshape => {
            count(1, 1)?;
            match len(x[0])? == len(said)? {
                true => Ok(said.to_vec()),
                false => Err(format!("makes {said:?} of {:?}", x[0])),
            }
        }
        Op::Narrow { start } => {
            count(1, 1)?;
            let c = channels(said)?;
            match start.checked_add(c) {
                Some(end) if end <= channels(x[0])? => Ok(with_channels(x[0], c)),
                _ => Err(format!("takes {c} channels from {start} on of {:?}", x[0])),
            }
        }
        Op::PadChannels { before } => {
            count(1, 1)?;
            let (old, new) = (channels(x[0])?, channels(said)?);
            match before.checked_add(old) {
                Some(end) if end <= new => Ok(with_channels(x[0], new)),
                _ => Err(format!("makes {new} channels of {before} and {old}")),
            }
        }
        Op::Subsample { start, step } => {
            count(1, 1)?;
            bearable(&[start])?;
            let [n, c, h, w] = images(x[0])?;
            match step {
                1..=STEP => Ok(vec![n, c, h.div_ceil(step), w.div_ceil(step)]),
                _ => Err(format!("has a step of {step}, expected 1 to {STEP}")),
            }
        }
        Op::Concat => {
            let Some(&first) = x.first() else {
                return Err("has 0 inputs, expected at least 1".into());
            };
            let mut c = 0;
            for part in x {
                c += channels(part)?;
                if with_channels(part, 1) != with_channels(first, 1) {
                    return Err(format!("puts {part:?} beside {first:?}"));
                }
            }
            Ok(with_channels(first, c))
        }
        Op::MaxPool2d { size, stride, pad } | Op::AvgPool2d { size, stride, pad } => {
            count(1, 1)?;
            bearable(&[size, stride, pad])?;
            let g = PoolGeom::try_new(x[0], size, stride, pad).map_err(|e| e.to_string())?;
            Ok(g.y().to_vec())
        }
        Op::GlobalAvgPool => {
            count(1, 1)?;
            let [n, c, ..] = images(x[0])?;
            Ok(vec![n, c])
        }
    }
}

/// So that no sum or product of a few of them overflows.
fn bearable(sizes: &[usize]) -> Result<(), String> {
    match sizes.iter().find(|&&size| size > STEP) {
        None => Ok(()),
        Some(size) => {
            Err(format!("has a size of {size} among its attributes, expected at most {STEP}"))
        }
    }
}

fn terms(found: usize, most: usize) -> Result<(), String> {
    match found <= most {
        true => Ok(()),
        false => Err(format!("has sums of {found} terms, expected at most {most}")),
    }
}

fn finite(x: f32) -> Result<(), String> {
    match x.is_finite() {
        true => Ok(()),
        false => Err(format!("has a number {x} among its attributes, expected a finite one")),
    }
}

fn images(x: &[usize]) -> Result<[usize; 4], String> {
    x.try_into().map_err(|_| format!("takes images N C H W, not {x:?}"))
}

fn channels(x: &[usize]) -> Result<usize, String> {
    x.get(1).copied().ok_or_else(|| format!("has no channels in {x:?}"))
}

fn with_channels(x: &[usize], c: usize) -> Vec<usize> {
    let mut shape = x.to_vec();
    if let Some(channels) = shape.get_mut(1) {
        *channels = c;
    }
    shape
}

fn per_channel(x: &[usize], numbers: &[&[usize]]) -> Result<(), String> {
    let c = channels(x)?;
    match numbers.iter().find(|n| ***n != [c]) {
        None => Ok(()),
        Some(n) => Err(format!("has numbers {n:?} for the channels of {x:?}")),
    }
}

fn residual(y: Vec<usize>, added: Option<&&[usize]>) -> Result<Vec<usize>, String> {
    match added {
        Some(added) if **added != *y => Err(format!("joins {added:?} to {y:?}")),
        _ => Ok(y),
    }
}
