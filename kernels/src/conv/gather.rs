//! The inner loop of direct convolution with channels as the lanes: gathered numbers times packed
//! vectors.
//!
//! ```text
//! out[slot(r), l] = Σ_s x[base(r) + offset(s)] · v[s, l]
//! ```
//!
//! | pass    | row r             | step s                   | lane l         |
//! | ------- | ----------------- | ------------------------ | -------------- |
//! | forward | pixel of y        | channel of x, tap        | channel of y   |
//! | dx      | pixel of x        | channel of y, tap        | channel of x   |
//! | dw      | channel of x, tap | image, pixel of y        | channel of y   |
//!
//! A tile of [`ROWS`] rows by two vector registers of lanes stays in registers for all steps: 12
//! sums, two vectors and one gathered number are 15 of the 16 registers of AVX2. The order of an
//! output's sum is that of the steps, whatever the tile it falls into.

use super::eight::Eight;
use crate::ahead::Ahead;
use crate::simd::per_level;

/// Rows computed together.
pub(super) const ROWS: usize = 6;

/// Steps between two portions of what is asked for ahead, since a tile of a long sum takes long.
const SOME: usize = 32;

/// Where a row reads and where its result goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Place in `x` that the offsets of the steps are added to.
    pub base: u32,
    /// Which group of lanes of the output.
    pub slot: u32,
}

impl Row {
    /// The largest base and the largest slot; zeros of no rows.
    #[inline(always)]
    pub(super) fn last(rows: &[Row]) -> Row {
        // A plain loop, which the compiler makes one of vectors.
        let mut last = Row { base: 0, slot: 0 };
        for row in rows {
            last = Row { base: last.base.max(row.base), slot: last.slot.max(row.slot) };
        }
        last
    }
}

/// The offsets of all steps: a table, repeated at equal distances.
#[derive(Clone, Copy, Debug)]
pub(super) struct Steps<'a> {
    pub table: &'a [u32],
    pub repeats: usize,
    pub advance: usize,
}

impl Steps<'_> {
    pub(super) fn len(self) -> usize {
        self.table.len() * self.repeats
    }

    /// The largest offset.
    pub(super) fn reach(self) -> usize {
        let last = self.repeats.saturating_sub(1) * self.advance;
        last + self.table.iter().max().map_or(0, |&offset| offset as usize)
    }
}

/// A place in a buffer, as the tables keep it.
#[track_caller]
pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).expect("convolution: a buffer of more than 2^32 elements")
}

/// What becomes of the old content of an output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Write {
    /// It is not even read.
    Over,
    /// The sums are added to it.
    Add,
}

/// How often [`gather_product`] asks for a portion of what is needed next.
pub(super) fn portions(rows: usize, steps: Steps<'_>) -> usize {
    rows.div_ceil(ROWS) * steps.repeats * steps.table.len().div_ceil(SOME)
}

per_level! {
    /// The sums above, for lanes in groups of `L`; from one vector of `v` to the next `pitch` elements.
    ///
    /// # Panics
    /// If a row or step reaches beyond `x`, `v` or `out`.
    pub(super) fn gather_product[const L: usize](
        x: &[f32],
        rows: &[Row],
        steps: Steps<'_>,
        v: &[f32],
        pitch: usize,
        write: Write,
        out: &mut [[f32; L]],
        ahead: &mut Ahead,
    ) {
        let Row { base, slot } = Row::last(rows);
        assert!(
            steps.len() == 0 || (steps.len() - 1) * pitch + L <= v.len(),
            "gather_product: one vector a step"
        );
        assert!(
            rows.is_empty() || (slot as usize) < out.len(),
            "gather_product: slot {slot} in {}", out.len()
        );
        assert!(
            rows.is_empty() || steps.len() == 0 || base as usize + steps.reach() < x.len(),
            "gather_product: {base} + {} reaches beyond {}", steps.reach(), x.len()
        );
        let mut rows = rows;
        while !rows.is_empty() {
            // Of about as many rows each: a tile of one or two has so few sums that they wait for
            // one another.
            let tiles = rows.len().div_ceil(ROWS);
            let (now, later) = rows.split_at(rows.len().div_ceil(tiles));
            #[cfg(target_arch = "x86_64")]
            if FUSED {
                // SAFETY: the asserts above hold for all rows and steps; and on x86-64 `FUSED` says
                // that FMA is there, which implies AVX.
                unsafe { tile_of::<std::arch::x86_64::__m256, L>(x, now, steps, v, pitch, write, out, ahead) };
                rows = later;
                continue;
            }
            // SAFETY: the asserts above hold for all rows and steps.
            unsafe { tile_of::<[f32; 8], L>(x, now, steps, v, pitch, write, out, ahead) };
            rows = later;
        }
    }
}

/// The sums of up to [`ROWS`] rows, in registers `E`.
///
/// # Safety
/// Each `base` plus each step's offset lies inside `x`; each slot lies inside `out`; a vector for each
/// step, inside `v`; the machine knows the instructions of `E`.
#[inline(always)]
unsafe fn tile_of<E: Eight, const L: usize>(
    x: &[f32],
    rows: &[Row],
    steps: Steps<'_>,
    v: &[f32],
    pitch: usize,
    write: Write,
    out: &mut [[f32; L]],
    ahead: &mut Ahead,
) {
    let (v, x) = (v.as_ptr(), x.as_ptr());
    let out = out.as_mut_ptr().cast();
    // SAFETY: as asked for; and P is the number of rows, 8·V that of lanes.
    unsafe {
        match (rows.len(), L) {
            (1, 8) => tile::<E, 1, 1>(x, rows, steps, v, pitch, write, out, ahead),
            (2, 8) => tile::<E, 2, 1>(x, rows, steps, v, pitch, write, out, ahead),
            (3, 8) => tile::<E, 3, 1>(x, rows, steps, v, pitch, write, out, ahead),
            (4, 8) => tile::<E, 4, 1>(x, rows, steps, v, pitch, write, out, ahead),
            (5, 8) => tile::<E, 5, 1>(x, rows, steps, v, pitch, write, out, ahead),
            (ROWS, 8) => tile::<E, ROWS, 1>(x, rows, steps, v, pitch, write, out, ahead),
            (1, 16) => tile::<E, 1, 2>(x, rows, steps, v, pitch, write, out, ahead),
            (2, 16) => tile::<E, 2, 2>(x, rows, steps, v, pitch, write, out, ahead),
            (3, 16) => tile::<E, 3, 2>(x, rows, steps, v, pitch, write, out, ahead),
            (4, 16) => tile::<E, 4, 2>(x, rows, steps, v, pitch, write, out, ahead),
            (5, 16) => tile::<E, 5, 2>(x, rows, steps, v, pitch, write, out, ahead),
            (ROWS, 16) => tile::<E, ROWS, 2>(x, rows, steps, v, pitch, write, out, ahead),
            (rows, lanes) => unreachable!("a tile of {rows} rows by {lanes} lanes"),
        }
    }
}

/// The sums of `P` rows by `8·V` lanes.
///
/// # Safety
/// As for [`tile_of`], with `P` rows, and vectors and slots of `8·V`.
#[inline(always)]
unsafe fn tile<E: Eight, const P: usize, const V: usize>(
    x: *const f32,
    rows: &[Row],
    steps: Steps<'_>,
    mut v: *const f32,
    pitch: usize,
    write: Write,
    out: *mut f32,
    ahead: &mut Ahead,
) {
    // SAFETY: base plus offset lies inside x, v moves on once a step, there are P rows, and the
    // slots lie inside out. The pointers x[p], and v after the last step, may lie anywhere, so they are
    // made by wrapping.
    unsafe {
        let mut sums = [[E::zero(); V]; P];
        let mut x: [*const f32; P] =
            std::array::from_fn(|p| x.wrapping_add(rows.get_unchecked(p).base as usize));
        for _ in 0..steps.repeats {
            for some in steps.table.chunks(SOME) {
                ahead.fetch();
                for &offset in some {
                    let vector: [E; V] = std::array::from_fn(|i| E::load(v.add(8 * i)));
                    v = v.wrapping_add(pitch);
                    for p in 0..P {
                        let number = E::splat(x[p].wrapping_add(offset as usize));
                        for i in 0..V {
                            sums[p][i] = number.mul_add(vector[i], sums[p][i]);
                        }
                    }
                }
            }
            x = x.map(|x| x.wrapping_add(steps.advance));
        }
        for p in 0..P {
            let out = out.add(rows.get_unchecked(p).slot as usize * 8 * V);
            for i in 0..V {
                let out = out.add(8 * i);
                let sum = sums[p][i];
                if write == Write::Add { E::load(out).add(sum) } else { sum }.store(out);
            }
        }
    }
}
