//! The inner loop of the gradient for filters of few taps: eight neighbouring pixels of `dy` are the lanes,
//! times what each tap sees there of `x`. Both are read as they lie in memory, where
//! [`gather_product`](super::gather::gather_product) wants `dy` turned first.
//!
//! ```text
//! sums[slot(t)·pitch + o, l] = Σ_r x[base(t) + base(r) + l] · dy[o·plane + slot(r) + l]    for l < 8
//! ```
//!
//! A tile of [`OUTPUTS`] channels of `dy` by [`TAPS`] taps stays in registers for all runs: 12 sums, three
//! vectors of `x` and one of `dy` are the 16 registers of AVX2. The order of a sum is that of the runs,
//! whatever the tile it falls into.

use super::eight::Eight;
use super::gather::{Row, Write};
use super::lines::RUN;
use crate::ahead::Ahead;
use crate::simd::per_level;

/// Channels of `dy` computed together.
pub(super) const OUTPUTS: usize = 4;
/// Taps computed together.
pub(super) const TAPS: usize = 3;

/// Runs between two portions of what is asked for ahead.
const SOME: usize = 64;

/// How often [`dot_product`] asks for a portion of what is needed next.
pub(super) fn portions(taps: usize, runs: usize, channels: usize) -> usize {
    channels.div_ceil(OUTPUTS) * taps.div_ceil(TAPS) * runs.div_ceil(SOME)
}

per_level! {
    /// The sums above, for the first `channels` channels.
    ///
    /// # Panics
    /// If a tap or run reaches beyond `x`, `dy` or `sums`.
    pub(super) fn dot_product[](
        x: &[f32],
        taps: &[Row],
        runs: &[Row],
        dy: &[f32],
        plane: usize,
        channels: usize,
        write: Write,
        sums: &mut [[f32; RUN]],
        pitch: usize,
        ahead: &mut Ahead,
    ) {
        if taps.is_empty() || channels == 0 {
            return;
        }
        let (tap, run) = (Row::last(taps), Row::last(runs));
        let (base, slot) = (tap.base as usize + run.base as usize, run.slot as usize);
        assert!(
            tap.slot as usize * pitch + channels <= sums.len(),
            "dot_product: {channels} sums of tap {} in {}", tap.slot, sums.len()
        );
        assert!(
            runs.is_empty() || base + RUN <= x.len(),
            "dot_product: {base} reaches beyond {}", x.len()
        );
        assert!(
            runs.is_empty() || (channels - 1) * plane + slot + RUN <= dy.len(),
            "dot_product: {channels} planes of {plane} in {}", dy.len()
        );
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            // SAFETY: the asserts above hold for all taps, runs and channels; and on x86-64 `FUSED` says
            // that FMA is there, which implies AVX.
            return unsafe {
                use std::arch::x86_64::__m256;
                tiles::<__m256>(x, taps, runs, dy, plane, channels, write, sums, pitch, ahead)
            };
        }
        // SAFETY: the asserts above hold for all taps, runs and channels.
        unsafe { tiles::<[f32; 8]>(x, taps, runs, dy, plane, channels, write, sums, pitch, ahead) }
    }
}

/// The sums above, in registers `E`.
///
/// # Safety
/// There are taps and channels. Each tap's base plus each run's plus a run lies inside `x`; each slot of a
/// run plus a run, inside each plane of `dy`; and the sums of each tap and channel, inside `sums`. The machine
/// knows the instructions of `E`.
#[inline(always)]
unsafe fn tiles<E: Eight>(
    x: &[f32],
    taps: &[Row],
    runs: &[Row],
    dy: &[f32],
    plane: usize,
    channels: usize,
    write: Write,
    sums: &mut [[f32; RUN]],
    pitch: usize,
    ahead: &mut Ahead,
) {
    let (x, dy, sums) = (x.as_ptr(), dy.as_ptr(), sums.as_mut_ptr());
    for channel in (0..channels).step_by(OUTPUTS) {
        for tap in (0..taps.len()).step_by(TAPS) {
            // SAFETY: as asked for, since a tile that is not full has its last channel and tap again. The
            // pointers at x alone may lie anywhere, so they are made by wrapping.
            unsafe {
                let channels: [usize; OUTPUTS] =
                    std::array::from_fn(|o| (channel + o).min(channels - 1));
                let taps: [Row; TAPS] =
                    std::array::from_fn(|t| *taps.get_unchecked((tap + t).min(taps.len() - 1)));
                let seen = taps.map(|tap| x.wrapping_add(tap.base as usize));
                let dy = channels.map(|o| dy.add(o * plane));
                let sums = channels
                    .map(|o| taps.map(|tap| sums.add(tap.slot as usize * pitch + o).cast::<f32>()));
                tile::<E>(seen, runs, dy, write, sums, ahead);
            }
        }
    }
}

/// The sums of one tile, each of which goes where `at` says.
///
/// # Safety
/// As for [`tiles`].
#[inline(always)]
unsafe fn tile<E: Eight>(
    x: [*const f32; TAPS],
    runs: &[Row],
    dy: [*const f32; OUTPUTS],
    write: Write,
    at: [[*mut f32; TAPS]; OUTPUTS],
    ahead: &mut Ahead,
) {
    // SAFETY: base plus base plus a run lies inside x, slots inside the planes of dy, and there are eight
    // floats at each place.
    unsafe {
        let mut sums: [[E; TAPS]; OUTPUTS] = match write {
            Write::Over => [[E::zero(); TAPS]; OUTPUTS],
            // All of them before one is written, for some may be one and the same.
            Write::Add => at.map(|at| at.map(|at| E::load(at))),
        };
        for some in runs.chunks(SOME) {
            ahead.fetch();
            for run in some {
                let seen = x.map(|x| E::load(x.wrapping_add(run.base as usize)));
                for o in 0..OUTPUTS {
                    let dy = E::load(dy[o].add(run.slot as usize));
                    for t in 0..TAPS {
                        sums[o][t] = dy.mul_add(seen[t], sums[o][t]);
                    }
                }
            }
        }
        for o in 0..OUTPUTS {
            for t in 0..TAPS {
                sums[o][t].store(at[o][t]);
            }
        }
    }
}

/// What the lanes of each sum come to, at the beginning of `sums`.
pub(super) fn fold(sums: &mut [f32]) -> &[f32] {
    let many = sums.len() / RUN;
    for i in 0..many {
        let [a, b, c, d, e, f, g, h] = sums.as_chunks::<RUN>().0[i];
        sums[i] = ((a + e) + (c + g)) + ((b + f) + (d + h));
    }
    &sums[..many]
}
