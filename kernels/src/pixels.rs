//! Pixels eight at a time, and what they add up to channel by channel.

use crate::lanes::{EIGHT, Lanes, Stored};
use crate::par;

/// Pixels of a channel whose terms are added up as floats, in eight sums, before they go on in double
/// precision.
pub(crate) const STRETCH: usize = 1024;

/// Adds up what `add(first element, images, their elements of out, sums a channel)` finds in a few
/// images at a time, in their order.
pub(crate) fn add_up<const K: usize>(
    n: usize,
    c: usize,
    hw: usize,
    out: &mut [f32],
    add: impl Fn(usize, usize, &mut [f32], &mut [[f64; K]]) + Sync,
) -> Vec<[f64; K]> {
    let some = STRETCH.div_ceil(hw).min(n);
    let mut parts = vec![[0.0; K]; n.div_ceil(some) * c];
    let size = some * c * hw;
    let mut pieces: Vec<_> = match out {
        [] => parts.chunks_mut(c).map(|sums| (&mut [][..], sums)).collect(),
        _ => out.chunks_mut(size).zip(parts.chunks_mut(c)).collect(),
    };
    par::chunks(&mut pieces, 1, |i, piece| {
        let (out, sums) = &mut piece[0];
        add(i * size, some.min(n - i * some), out, sums);
    });
    drop(pieces);
    let (sums, rest) = parts.split_at_mut(c);
    for part in rest.chunks(c) {
        for (sum, part) in sums.iter_mut().zip(part) {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
    }
    parts.truncate(c);
    parts
}

/// Eight numbers from `at` on; zeros beyond the end.
#[inline(always)]
pub(crate) fn get<L: Lanes, X: Stored>(x: &[X], at: usize) -> L {
    match x[at..].first_chunk() {
        Some(x) => X::load(x),
        None => X::load(&padded(&x[at..])),
    }
}

/// Less than eight numbers, and zeros behind them.
#[inline(always)]
pub(crate) fn padded<X: Stored>(x: &[X]) -> [X; EIGHT] {
    let mut eight = [X::default(); EIGHT];
    eight[..x.len()].copy_from_slice(x);
    eight
}

/// Writes eight numbers, or as many as there is room for.
#[inline(always)]
pub(crate) fn put<L: Lanes>(x: L, y: &mut [f32], at: usize) {
    match y[at..].first_chunk_mut() {
        Some(y) => x.store(y),
        None => {
            let mut eight = [0.0; EIGHT];
            x.store(&mut eight);
            let y = &mut y[at..];
            y.copy_from_slice(&eight[..y.len()]);
        }
    }
}

/// Some sums, in eight parts each.
pub(crate) struct Sums<L, const K: usize> {
    pub parts: [L; K],
    pixels: usize,
}

impl<L: Lanes, const K: usize> Sums<L, K> {
    #[inline(always)]
    pub fn new() -> Self {
        Sums { parts: [L::splat(0.0); K], pixels: 0 }
    }

    /// Adds terms of eight pixels; zero where there are none.
    #[inline(always)]
    pub fn add(&mut self, terms: [L; K], sums: &mut [f64; K]) {
        let mut parts = self.parts;
        for (part, term) in parts.iter_mut().zip(terms) {
            *part = part.add(term);
        }
        self.count(parts, 1, sums);
    }

    /// Eights of pixels that may be added to `parts` before they are [counted](Self::count).
    #[inline(always)]
    pub fn room(&self) -> usize {
        (STRETCH - self.pixels) / EIGHT
    }

    /// Takes parts to which some eights were added: by a loop that has them in registers.
    #[inline(always)]
    pub fn count(&mut self, parts: [L; K], eights: usize, sums: &mut [f64; K]) {
        self.parts = parts;
        self.pixels += eights * EIGHT;
        if self.pixels == STRETCH {
            self.flush(sums);
        }
    }

    #[inline(always)]
    pub fn flush(&mut self, sums: &mut [f64; K]) {
        for (part, sum) in self.parts.into_iter().zip(sums) {
            let mut eight = [0.0; EIGHT];
            part.store(&mut eight);
            *sum += eight.iter().map(|&x| f64::from(x)).sum::<f64>();
        }
        *self = Sums::new();
    }
}
