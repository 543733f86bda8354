//! Operations on floats, each to the bit what the tape computes.

use crate::op::Op;
use crate::shape::AXES;
use dirnet_kernels::bend::bend;
use dirnet_kernels::elementwise::{add_channels, map, scale_channels, zip};
use dirnet_kernels::shape::{copy_channels, subsample};
use dirnet_kernels::{PoolGeom, bits, gemm, math, norm, par, pool, reduce};
use std::ops::Deref;

/// A shape that needs no memory of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dims {
    sizes: [usize; AXES],
    axes: usize,
}

impl Dims {
    pub fn of(shape: &[usize]) -> Dims {
        let mut sizes = [1; AXES];
        sizes[..shape.len()].copy_from_slice(shape);
        Dims { sizes, axes: shape.len() }
    }
    /// The same with an axis `n` times as long.
    pub fn grown(mut self, axis: usize, n: usize) -> Dims {
        self.sizes[axis] *= n;
        self
    }
    pub fn len(&self) -> usize {
        self.sizes.iter().product()
    }
    /// As `N C H W`: what lies behind the channels counts as pixels.
    pub fn images(&self) -> [usize; 4] {
        match **self {
            [n, c, h, w] => [n, c, h, w],
            _ => [self.sizes[0], self.sizes[1], self.sizes[2..].iter().product(), 1],
        }
    }
    /// Bytes of the planes of its signs.
    pub fn planes_len(&self) -> usize {
        let [n, c, h, w] = self.images();
        n * c.div_ceil(4) * h * w
    }
}

impl Deref for Dims {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.sizes[..self.axes]
    }
}

/// Numbers and their shape.
#[derive(Clone, Copy)]
pub(crate) struct Array<'a> {
    pub x: &'a [f32],
    pub shape: Dims,
}

impl Array<'_> {
    /// `N C …` seen as `n` times `c` channels of `hw` numbers.
    fn channels(&self) -> [usize; 3] {
        let [n, c, h, w] = self.shape.images();
        [n, c, h * w]
    }
}

/// Room for what a step keeps besides its output.
#[derive(Debug, Default)]
pub(crate) struct Room {
    numbers: Vec<f32>,
    planes: Vec<u8>,
    words: Vec<u64>,
}

impl Room {
    /// Makes room for an operation whose output has this shape.
    pub fn reserve(&mut self, op: &Op, shape: &[usize]) {
        if *op == Op::Standardize {
            grow(&mut self.numbers, shape[0]);
        }
    }
    pub fn reserve_planes(&mut self, len: usize) {
        grow(&mut self.planes, len);
    }
    pub fn reserve_words(&mut self, len: usize) {
        grow(&mut self.words, len);
    }
    /// So many bytes for planes of signs.
    pub fn planes(&mut self, len: usize) -> &mut [u8] {
        &mut self.planes[..len]
    }
    /// So many words for rows of signs.
    pub fn words(&mut self, len: usize) -> &mut [u64] {
        &mut self.words[..len]
    }
}

fn grow<T: Clone + Default>(room: &mut Vec<T>, len: usize) {
    room.resize(room.len().max(len), T::default());
}

/// Computes a node other than the input and binary layers. Shapes are those that the graph was checked
/// for.
pub(crate) fn compute<'a>(
    op: &Op,
    inputs: usize,
    x: &(dyn Fn(usize) -> Array<'a> + Sync),
    y_shape: &[usize],
    y: &mut [f32],
    room: &mut Room,
) {
    let first = x(0);
    match *op {
        Op::Input | Op::Conv2d(_) | Op::Affine { .. } | Op::BinConv2d { .. } | Op::BinLinear => {
            unreachable!("no operation on floats")
        }
        Op::Linear => {
            let (n, k, o) = (first.shape[0], first.shape[1], x(1).shape[0]);
            gemm::dense(n, k, o, first.x, x(1).x, y);
        }
        Op::AddChannels => {
            let [n, c, hw] = first.channels();
            add_channels(n, c, hw, first.x, x(1).x, y);
        }
        Op::MulChannels => {
            let [n, c, hw] = first.channels();
            scale_channels(n, c, hw, first.x, x(1).x, y);
        }
        Op::MulPixels => {
            let [_, c, hw] = first.channels();
            par::chunks(y, hw, |row, y| {
                let (x, k) = (&first.x[row * hw..][..hw], &x(1).x[row / c * hw..][..hw]);
                y.iter_mut().zip(x.iter().zip(k)).for_each(|(y, (x, k))| *y = x * k);
            });
        }
        Op::Add => zip(first.x, x(1).x, y, |a, b| a + b),
        Op::Sub => zip(first.x, x(1).x, y, |a, b| a - b),
        Op::Mul => zip(first.x, x(1).x, y, |a, b| a * b),
        Op::Scale { factor } => map(first.x, y, |x| x * factor),
        Op::Shift { by } => map(first.x, y, |x| x + by),
        Op::Relu => map(first.x, y, |x| x.max(0.0)),
        Op::Hardtanh => map(first.x, y, |x| x.clamp(-1.0, 1.0)),
        Op::Clamp { low, high } => map(first.x, y, |x| x.clamp(low, high)),
        Op::Sigmoid => map(first.x, y, math::sigmoid),
        Op::Tanh => map(first.x, y, math::tanh),
        Op::Swish => map(first.x, y, |x| x * math::sigmoid(x)),
        Op::Abs => map(first.x, y, f32::abs),
        Op::Binarize => map(first.x, y, bits::sign),
        Op::Prelu | Op::Rprelu | Op::Maxout => {
            let [_, c, hw] = first.channels();
            par::chunks(y, hw, |row, y| {
                let number = |i: usize| x(i).x[row % c];
                let line = match op {
                    Op::Prelu => [0.0, 1.0, number(1), 0.0],
                    Op::Rprelu => [number(1), 1.0, number(2), number(3)],
                    _ => [0.0, number(1), number(2), 0.0],
                };
                map(&first.x[row * hw..][..hw], y, |x| bend(x, line));
            });
        }
        Op::Standardize => {
            let rows = first.shape[0];
            let cols = first.x.len() / rows;
            match cols {
                1 => y.copy_from_slice(first.x),
                _ => norm::standardize_rows(rows, cols, first.x, y, &mut room.numbers[..rows]),
            }
        }
        Op::Reshape => y.copy_from_slice(first.x),
        Op::Narrow { start } => {
            let [_, c, hw] = first.channels();
            let len = y_shape[1];
            copy_channels(first.x, [c, start], y, [len, 0], len, hw);
        }
        Op::PadChannels { before } => {
            let [_, c, hw] = first.channels();
            y.fill(0.0);
            copy_channels(first.x, [c, 0], y, [y_shape[1], before], c, hw);
        }
        Op::Subsample { start, step } => {
            let &[_, _, h, w] = &*first.shape else { unreachable!("checked") };
            subsample([h, w], start, step, first.x, y);
        }
        Op::Concat => {
            let mut at = 0;
            for part in (0..inputs).map(x) {
                let [_, c, hw] = part.channels();
                copy_channels(part.x, [c, 0], y, [y_shape[1], at], c, hw);
                at += c;
            }
        }
        Op::MaxPool2d { size, stride, pad } => {
            let g = PoolGeom::new(&first.shape, size, stride, pad);
            pool::max_pool2d_of(&g, first.x, None, y);
        }
        Op::AvgPool2d { size, stride, pad } => {
            pool::avg_pool2d(&PoolGeom::new(&first.shape, size, stride, pad), first.x, y);
        }
        Op::GlobalAvgPool => {
            let &[n, c, h, w] = &*first.shape else { unreachable!("checked") };
            reduce::sum_rows(n * c, h * w, first.x, y);
            y.iter_mut().for_each(|y| *y /= (h * w) as f32);
        }
    }
}
