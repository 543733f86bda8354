//! The inner loop of direct convolution at stride 1: eight neighbouring pixels of a row are the
//! lanes, so that images come and go as they lie in memory.
//!
//! ```text
//! out[c·plane + slot(r) + l] = Σ_s w(s, c) · x[base(r) + offset(s) + l]    for l < 8
//! ```
//!
//! Where the outputs are every second pixel, those between are given as `evens`, and the sums are woven
//! with them on their way to memory: `out[c·plane + slot(r) + 2l] = evens[c, r, l]`, and one further on
//! the sum.
//!
//! A tile of up to [`CHANNELS`] channels by two runs of pixels stays in registers for all steps: 12
//! sums, two vectors and one number are 15 of the 16 registers of AVX2. The order of an output's sum
//! is that of the steps, whatever the tile it falls into.

use super::eight::Eight;
use super::gather::{Row, Steps};
use crate::ahead::Ahead;
use crate::simd::per_level;

/// Channels computed together, at most.
pub(super) const CHANNELS: usize = 6;
/// Numbers from one step to the next in packed filters, of which a tile has up to [`CHANNELS`].
const PITCH: usize = 8;
/// Pixels of a run.
pub(super) const RUN: usize = 8;

/// The numbers of some filters, as they lie in memory.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    pub data: &'a [f32],
    /// Elements from one step to the next, and from one channel to the next.
    pub step: usize,
    pub channel: usize,
}

per_level! {
    /// The sums above, for `channels` channels, woven with `evens` if there are any.
    ///
    /// # Panics
    /// If a run or step reaches beyond `x`, `w`, `evens` or `out`, or there are too many channels.
    pub(super) fn line_product[](
        x: &[f32],
        runs: &[Row],
        steps: Steps<'_>,
        w: Numbers<'_>,
        channels: usize,
        evens: Option<&[f32]>,
        out: &mut [f32],
        plane: usize,
        ahead: &mut Ahead,
    ) {
        assert!((1..=CHANNELS).contains(&channels), "line_product: {channels} channels");
        let Row { base, slot } = Row::last(runs);
        let (base, slot) = (base as usize + RUN, slot as usize);
        let end = slot + if evens.is_some() { 2 * RUN } else { RUN };
        assert!(
            evens.is_none_or(|evens| channels * runs.len() * RUN <= evens.len()),
            "line_product: {channels} times {} runs of others", runs.len()
        );
        let last = (channels - 1) * w.channel + steps.len().saturating_sub(1) * w.step;
        assert!(steps.len() == 0 || last < w.data.len(), "line_product: the filters of each step");
        assert!(
            runs.is_empty() || (channels - 1) * plane + end <= out.len(),
            "line_product: {channels} planes of {plane} in {}", out.len()
        );
        assert!(
            runs.is_empty() || base + steps.reach() <= x.len(),
            "line_product: {base} + {} reaches beyond {}", steps.reach(), x.len()
        );
        let to = To {
            out: out.as_mut_ptr(),
            plane,
            evens: evens.map_or(std::ptr::null(), |evens| evens.as_ptr()),
            evens_plane: runs.len() * RUN,
        };
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            // SAFETY: the asserts above hold for all runs and steps; and on x86-64 `FUSED` says
            // that FMA is there, which implies AVX.
            return unsafe {
                use std::arch::x86_64::__m256;
                let packed = matches!(w, Numbers { step: PITCH, channel: 1, .. });
                match (packed, evens.is_some()) {
                    (true, false) => tiles::<__m256, true, false>(x, runs, steps, w, channels, to, ahead),
                    (true, true) => tiles::<__m256, true, true>(x, runs, steps, w, channels, to, ahead),
                    (false, false) => tiles::<__m256, false, false>(x, runs, steps, w, channels, to, ahead),
                    (false, true) => tiles::<__m256, false, true>(x, runs, steps, w, channels, to, ahead),
                }
            };
        }
        // SAFETY: the asserts above hold for all runs and steps.
        unsafe {
            match evens {
                None => tiles::<[f32; 8], false, false>(x, runs, steps, w, channels, to, ahead),
                Some(_) => tiles::<[f32; 8], false, true>(x, runs, steps, w, channels, to, ahead),
            }
        }
    }
}

/// Where the sums go, and what they are woven with.
#[derive(Clone, Copy)]
struct To {
    out: *mut f32,
    plane: usize,
    evens: *const f32,
    evens_plane: usize,
}

/// The sums above, in registers `E`; where the numbers are `PACKED`, a [`PITCH`] from step to step, the
/// compiler knows their places.
///
/// # Safety
/// Each `base` plus each step's offset plus a run lies inside `x`; each slot plus a run, or two if `WOVEN`,
/// lies inside each of the planes of `out`, and then each run inside those of `evens`; the numbers of all
/// steps and channels lie inside `w`; the machine knows the instructions of `E`.
#[inline(always)]
unsafe fn tiles<E: Eight, const PACKED: bool, const WOVEN: bool>(
    x: &[f32],
    runs: &[Row],
    steps: Steps<'_>,
    w: Numbers<'_>,
    channels: usize,
    to: To,
    ahead: &mut Ahead,
) {
    let x = x.as_ptr();
    // SAFETY: as asked for; and a tile has C channels and V runs.
    unsafe {
        match channels {
            1 => cut::<E, PACKED, WOVEN, 1, 8>(x, runs, steps, w, to, ahead),
            2 => cut::<E, PACKED, WOVEN, 2, 4>(x, runs, steps, w, to, ahead),
            3 => cut::<E, PACKED, WOVEN, 3, 3>(x, runs, steps, w, to, ahead),
            4 => cut::<E, PACKED, WOVEN, 4, 2>(x, runs, steps, w, to, ahead),
            5 => cut::<E, PACKED, WOVEN, 5, 2>(x, runs, steps, w, to, ahead),
            CHANNELS => cut::<E, PACKED, WOVEN, CHANNELS, 2>(x, runs, steps, w, to, ahead),
            _ => unreachable!("a tile of {channels} channels"),
        }
    }
}

/// All runs, by tiles of `V` as long as there are as many.
///
/// # Safety
/// As for [`tiles`], with `C` channels.
#[inline(always)]
unsafe fn cut<E: Eight, const PACKED: bool, const WOVEN: bool, const C: usize, const V: usize>(
    x: *const f32,
    runs: &[Row],
    steps: Steps<'_>,
    w: Numbers<'_>,
    to: To,
    ahead: &mut Ahead,
) {
    let mut to = to;
    let (whole, rest) = runs.as_chunks::<V>();
    for runs in whole {
        ahead.fetch();
        // SAFETY: as asked for.
        unsafe { tile::<E, PACKED, WOVEN, C, V>(x, runs, steps, w, to) };
        to.evens = to.evens.wrapping_add(V * RUN);
    }
    for run in rest {
        // SAFETY: as asked for.
        unsafe { tile::<E, PACKED, WOVEN, C, 1>(x, &[*run], steps, w, to) };
        to.evens = to.evens.wrapping_add(RUN);
    }
}

/// The sums of `C` channels by `V` runs.
///
/// # Safety
/// As for [`tiles`].
#[inline(always)]
unsafe fn tile<E: Eight, const PACKED: bool, const WOVEN: bool, const C: usize, const V: usize>(
    x: *const f32,
    runs: &[Row; V],
    steps: Steps<'_>,
    w: Numbers<'_>,
    to: To,
) {
    // SAFETY: base plus offset plus a run lies inside x, the number at w moves on once a step, and the slots
    // lie inside the planes of out. The pointers x[i] and w alone may lie anywhere, so they are made by
    // wrapping.
    unsafe {
        let mut number = w.data.as_ptr();
        let (step, channel) = if PACKED { (PITCH, 1) } else { (w.step, w.channel) };
        let mut sums = [[E::zero(); V]; C];
        let mut x: [*const f32; V] = std::array::from_fn(|i| x.wrapping_add(runs[i].base as usize));
        for _ in 0..steps.repeats {
            for &offset in steps.table {
                let vector: [E; V] =
                    std::array::from_fn(|i| E::load(x[i].wrapping_add(offset as usize)));
                for c in 0..C {
                    let w = E::splat(number.wrapping_add(c * channel));
                    for i in 0..V {
                        sums[c][i] = w.mul_add(vector[i], sums[c][i]);
                    }
                }
                number = number.wrapping_add(step);
            }
            x = x.map(|x| x.wrapping_add(steps.advance));
        }
        for c in 0..C {
            for i in 0..V {
                let (sum, out) = (sums[c][i], to.out.add(c * to.plane + runs[i].slot as usize));
                if WOVEN {
                    let even = E::load(to.evens.add(c * to.evens_plane + i * RUN));
                    let (first, second) = even.weave(sum);
                    first.store(out);
                    second.store(out.add(RUN));
                } else {
                    sum.store(out);
                }
            }
        }
    }
}
