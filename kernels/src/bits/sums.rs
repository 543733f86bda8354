//! Signed sums by table: the inner loop of both gradients.
//!
//! Where one operand of a dot product is +-1, four terms of it have 16 possible sums, and five have 32. A
//! [`Table`] holds them for 16 lanes; then a few signs find the sum of as many products with one load and
//! one addition, which is less than a quarter of four multiply-adds.

#[cfg(target_arch = "x86_64")]
use crate::lanes::Avx;
use crate::lanes::{Lanes, Plain};
use crate::simd::per_level;

/// Floats in a row of a table: one cache line.
pub(super) const LANES: usize = 16;

/// Half a row: the floats of one vector, and of one place in the target.
pub(super) const HALF: usize = LANES / 2;

/// Signs in a word.
pub(super) const SIGNS: usize = u64::BITS as usize;

/// For 16 lanes, all sums of four or five numbers, 16 or 32 `ROWS`: bit `b` of the row set means that
/// number `b` is added, clear that it is subtracted.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Table<const ROWS: usize>([[f32; LANES]; ROWS]);

/// Sums of four numbers.
pub(super) type Four = Table<16>;

/// Sums of five. They save a fifth of the additions, and take twice the time to make.
pub(super) type Five = Table<32>;

impl<const ROWS: usize> Table<ROWS> {
    pub const ZERO: Self = Table([[0.0; LANES]; ROWS]);

    /// Numbers that it holds the sums of, and signs that choose one.
    pub const TERMS: usize = ROWS.ilog2() as usize;

    /// Tables that the signs of one word choose from, 16 or 26 KiB, which the first cache holds. Of a
    /// table that they do not reach to the end of, numbers without a sign are zero.
    pub const WORD: usize = SIGNS.div_ceil(Self::TERMS);

    /// Floats of scratch that hold `n` tables wherever it begins.
    pub fn floats(n: usize) -> usize {
        (n + 1) * size_of::<Self>() / size_of::<f32>()
    }

    /// `n` tables, and what is left of a scratch that has [`Self::floats`] for them.
    pub fn split(scratch: &mut [f32], n: usize) -> (&mut [Self], &mut [f32]) {
        let (tables, rest) = scratch.split_at_mut(Self::floats(n));
        // SAFETY: a table is nothing but floats, and any floats make one.
        let (_, tables, _) = unsafe { tables.align_to_mut() };
        (&mut tables[..n], rest)
    }

    /// The sums of numbers `x(0)`, `x(1)` … for each lane of a half.
    #[inline(always)]
    pub fn fill<L: Lanes>(&mut self, half: usize, x: impl Fn(usize) -> L) {
        let sums = |a: L, b: L| {
            let (sum, difference) = (a.add(b), a.sub(b));
            [sum.neg(), difference, difference.neg(), sum]
        };
        let (low, high) = (sums(x(0), x(1)), sums(x(2), x(3)));
        let store = |row: &mut [f32; LANES], sum: L| sum.store(&mut row.as_chunks_mut().0[half]);
        let (below, above) = self.0.split_at_mut(16);
        for (i, below) in below.iter_mut().enumerate() {
            let sum = low[i % 4].add(high[i / 4]);
            if Self::TERMS == 4 {
                store(below, sum);
            } else {
                store(below, sum.sub(x(4)));
                store(&mut above[i], sum.add(x(4)));
            }
        }
    }
}

/// Fills tables with as many of `lanes` as each holds.
#[inline(always)]
fn fill_all<L: Lanes, const ROWS: usize>(tables: &mut [Table<ROWS>], lanes: &[[f32; LANES]]) {
    for (table, lanes) in tables.iter_mut().zip(lanes.chunks_exact(Table::<ROWS>::TERMS)) {
        for half in 0..2 {
            table.fill(half, |i| L::load(&lanes[i].as_chunks().0[half]));
        }
    }
}

/// Where sums go: those of stream `j` to [`HALF`] floats each at `at[0] + j·stride` and at
/// `at[1] + j·stride`.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub at: [usize; 2],
    pub stride: usize,
}

/// Neighbouring tables, at most [`Table::WORD`], and the words whose signs choose rows of them, lowest
/// first: that of the first stream, and those of the next after it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Term {
    pub table: usize,
    pub tables: usize,
    pub word: usize,
}

/// Adds to the target of each stream the rows that its words choose from the tables of each term, `MOST`
/// streams at a time: six, which leave four of 16 registers for the rest, or eight, which leave none but
/// pay where words are few.
#[inline(always)]
pub(super) fn add<const AVX2: bool, const MOST: usize, const ROWS: usize>(
    tables: &[Table<ROWS>],
    words: &[u64],
    terms: &[Term],
    streams: usize,
    y: &mut [f32],
    target: Target,
) {
    if streams == 0 {
        return;
    }
    let last = target.at[0].max(target.at[1]) + (streams - 1) * target.stride;
    assert!(last + HALF <= y.len());
    for term in terms {
        assert!(term.table + term.tables <= tables.len() && term.word + streams <= words.len());
    }
    let mut j = 0;
    while j < streams {
        j += match streams - j {
            left if left >= MOST => some::<AVX2, MOST, ROWS>(tables, words, terms, j, y, target),
            6.. => some::<AVX2, 6, ROWS>(tables, words, terms, j, y, target),
            4.. => some::<AVX2, 4, ROWS>(tables, words, terms, j, y, target),
            _ => some::<AVX2, 1, ROWS>(tables, words, terms, j, y, target),
        }
    }
}

/// Streams `j` to `j + N`; returns `N`.
#[inline(always)]
fn some<const AVX2: bool, const N: usize, const ROWS: usize>(
    tables: &[Table<ROWS>],
    words: &[u64],
    terms: &[Term],
    j: usize,
    y: &mut [f32],
    target: Target,
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if AVX2 {
        // SAFETY: `AVX2` is true only where the machine has it; `add` has checked the last place of
        // the target, and tables and words of each term.
        unsafe { some_avx2::<N, ROWS>(tables, words, terms, j, y, target) };
        return N;
    }
    for i in j..j + N {
        let mut sum = [0.0; LANES];
        for term in terms {
            let mut word = words[term.word + i];
            for table in &tables[term.table..][..term.tables] {
                for (sum, row) in sum.iter_mut().zip(&table.0[word as usize % ROWS]) {
                    *sum += row;
                }
                word >>= ROWS.ilog2();
            }
        }
        for (at, half) in target.at.into_iter().zip(sum.chunks(HALF)) {
            let y = &mut y[at + i * target.stride..][..HALF];
            y.iter_mut().zip(half).for_each(|(y, sum)| *y += sum);
        }
    }
    N
}

/// # Safety
/// The machine has AVX2, and all that streams `j` to `j + N` name lies inside its slice.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,bmi2")]
unsafe fn some_avx2<const N: usize, const ROWS: usize>(
    tables: &[Table<ROWS>],
    words: &[u64],
    terms: &[Term],
    j: usize,
    y: &mut [f32],
    target: Target,
) {
    use std::arch::x86_64::*;
    // SAFETY: the caller vouches for the places; a few signs are a row of a table, which is aligned.
    unsafe {
        let [low, high] = target.at.map(|at| y.as_mut_ptr().add(at + j * target.stride));
        // They meet what is there at the end: it may have just been written, by places that overlap,
        // and would be waited for.
        let mut sums = [[_mm256_setzero_ps(); 2]; N];
        for term in terms {
            let words = words.as_ptr().add(term.word + j);
            // Turned so that signs, masked where they stand, are the place of their row in bytes.
            let mut turned = [0u64; N];
            for i in 0..N {
                turned[i] = (*words.add(i)).rotate_left(6);
            }
            let mut table = tables.as_ptr().add(term.table).cast::<u8>();
            for _ in 0..term.tables {
                for i in 0..N {
                    let row =
                        table.add((turned[i] & (ROWS as u64 - 1) << 6) as usize).cast::<f32>();
                    turned[i] = turned[i].rotate_right(ROWS.ilog2());
                    sums[i][0] = _mm256_add_ps(sums[i][0], _mm256_load_ps(row));
                    sums[i][1] = _mm256_add_ps(sums[i][1], _mm256_load_ps(row.add(HALF)));
                }
                table = table.add(size_of::<Table<ROWS>>());
            }
        }
        for i in 0..N {
            for (at, sum) in [low, high].into_iter().zip(sums[i]) {
                let at = at.add(i * target.stride);
                _mm256_storeu_ps(at, _mm256_add_ps(_mm256_loadu_ps(at), sum));
            }
        }
    }
}

per_level! {
    /// `sums[j][lane] += Σ_i lanes[i][lane]·(sign i of words[j])`, for as many terms as some tables hold;
    /// those beyond [`SIGNS`] are zero.
    pub(super) fn products[const ROWS: usize](
        lanes: &[[f32; LANES]],
        words: &[u64],
        tables: &mut [Table<ROWS>],
        sums: &mut [f32],
    ) {
        #[cfg(target_arch = "x86_64")]
        if FUSED {
            fill_all::<Avx, ROWS>(tables, lanes);
        } else {
            fill_all::<Plain, ROWS>(tables, lanes);
        }
        #[cfg(not(target_arch = "x86_64"))]
        fill_all::<Plain, ROWS>(tables, lanes);
        let target = Target { at: [0, HALF], stride: LANES };
        let all = Term { table: 0, tables: lanes.len() / Table::<ROWS>::TERMS, word: 0 };
        add::<FUSED, 6, ROWS>(tables, words, &[all], words.len(), sums, target);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn products_of<const ROWS: usize>(tables: usize, streams: usize) {
        let terms = tables * Table::<ROWS>::TERMS;
        let lane = |i: usize, lane: usize| match i {
            ..SIGNS => (i * LANES + lane) as f32 * 0.25 - 40.0,
            _ => 0.0,
        };
        let lanes: Vec<_> = (0..terms).map(|i| std::array::from_fn(|l| lane(i, l))).collect();
        let word = |j: usize| (j as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let words: Vec<_> = (0..streams).map(word).collect();
        for &level in crate::simd::available() {
            let mut sums = vec![0.5; streams * LANES];
            products(level, &lanes, &words, &mut [Table::<ROWS>::ZERO; 16], &mut sums);
            for (at, &got) in sums.iter().enumerate() {
                let (j, l) = (at / LANES, at % LANES);
                let sign = |i: usize| if word(j) >> i & 1 == 1 { 1.0 } else { -1.0 };
                let want = 0.5 + (0..terms.min(SIGNS)).map(|i| sign(i) * lane(i, l)).sum::<f32>();
                assert_eq!(got, want, "{level:?}: stream {j}, lane {l} of {terms} terms");
            }
        }
    }

    #[test]
    fn products_are_signed_sums() {
        for (tables, streams) in [(1, 1), (3, 7), (13, 24)] {
            products_of::<16>(tables, streams);
            products_of::<32>(tables, streams);
        }
        products_of::<16>(16, 24);
    }

    #[test]
    fn tables_begin_with_a_cache_line() {
        let mut scratch = vec![0.0; Four::floats(3) + 7];
        for skip in 0..4 {
            let (tables, rest) = Four::split(&mut scratch[skip..], 3);
            assert_eq!((tables.len(), tables.as_ptr().align_offset(64)), (3, 0));
            assert_eq!(rest.len(), 7 - skip);
        }
    }
}
