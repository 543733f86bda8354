//! The inner loop of direct convolution, the same for all three passes: gathered numbers times
//! packed vectors.
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

use crate::simd::{mul_add, per_level};

/// Rows computed together.
pub(super) const ROWS: usize = 6;

/// Where a row reads and where its result goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// Place in `x` that the offsets of the steps are added to.
    pub base: u32,
    /// Which group of lanes of the output.
    pub slot: u32,
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
    fn reach(self) -> usize {
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

per_level! {
    /// The sums above, for lanes in groups of `L`.
    ///
    /// # Panics
    /// If a row or step reaches beyond `x`, `v` or `out`.
    pub(super) fn gather_product[const L: usize](
        x: &[f32],
        rows: &[Row],
        steps: Steps<'_>,
        v: &[[f32; L]],
        write: Write,
        out: &mut [[f32; L]],
    ) {
        let slots = rows.iter().map(|row| row.slot).max().map_or(0, |slot| slot as usize + 1);
        let bases = rows.iter().map(|row| row.base).max().map_or(0, |base| base as usize + 1);
        assert_eq!(v.len(), steps.len(), "gather_product: one vector a step");
        assert!(slots <= out.len(), "gather_product: {slots} slots in {}", out.len());
        assert!(
            rows.is_empty() || v.is_empty() || bases + steps.reach() <= x.len(),
            "gather_product: {bases} + {} reaches beyond {}", steps.reach(), x.len()
        );
        let mut rows = rows;
        while !rows.is_empty() {
            // Two tiles of four rather than one of six and one of two, whose few sums would wait
            // for one another.
            let many = match rows.len() {
                left @ 0..=ROWS => left,
                left @ 7..=9 => left.div_ceil(2),
                _ => ROWS,
            };
            let (now, later) = rows.split_at(many);
            // SAFETY: the asserts above hold for all rows and steps.
            unsafe {
                match many {
                    1 => tile::<1, L, FUSED>(x, now, steps, v, write, out),
                    2 => tile::<2, L, FUSED>(x, now, steps, v, write, out),
                    3 => tile::<3, L, FUSED>(x, now, steps, v, write, out),
                    4 => tile::<4, L, FUSED>(x, now, steps, v, write, out),
                    5 => tile::<5, L, FUSED>(x, now, steps, v, write, out),
                    _ => tile::<ROWS, L, FUSED>(x, now, steps, v, write, out),
                }
            }
            rows = later;
        }
    }
}

/// The sums of `P` rows.
///
/// # Safety
/// There are `P` rows; each `base` plus each step's offset lies inside `x`; each slot lies inside
/// `out`; there are as many vectors as steps.
#[inline(always)]
unsafe fn tile<const P: usize, const L: usize, const FUSED: bool>(
    x: &[f32],
    rows: &[Row],
    steps: Steps<'_>,
    v: &[[f32; L]],
    write: Write,
    out: &mut [[f32; L]],
) {
    let mut sums = [[0f32; L]; P];
    let mut start = 0;
    let mut v = v.as_ptr();
    // SAFETY: there are P rows.
    let base: [usize; P] = std::array::from_fn(|p| unsafe { rows.get_unchecked(p) }.base as usize);
    for _ in 0..steps.repeats {
        // wrapping: a pointer that is not read from until the offset is added.
        let x: [*const f32; P] = std::array::from_fn(|p| x.as_ptr().wrapping_add(base[p] + start));
        for &offset in steps.table {
            // SAFETY: v moves on once a step, and there is a vector for each.
            let vector = unsafe { *v };
            v = v.wrapping_add(1);
            for p in 0..P {
                // SAFETY: base + offset lies inside x.
                let number = unsafe { *x[p].wrapping_add(offset as usize) };
                for l in 0..L {
                    sums[p][l] = mul_add::<FUSED>(number, vector[l], sums[p][l]);
                }
            }
        }
        start += steps.advance;
    }
    for p in 0..P {
        // SAFETY: there are P rows, and each slot lies inside out.
        let out = unsafe { out.get_unchecked_mut(rows.get_unchecked(p).slot as usize) };
        match write {
            Write::Over => *out = sums[p],
            Write::Add => out.iter_mut().zip(sums[p]).for_each(|(out, sum)| *out += sum),
        }
    }
}
