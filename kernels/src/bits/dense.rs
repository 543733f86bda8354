//! Products of +-1 matrices, and their gradients.

use super::lookup::{self, Offsets, Walk};
use super::prepared_dense::pack_rows;
use super::stage::Stage;
use super::sums::{self, Four, LANES, SIGNS};
use super::words;
use crate::par;
use crate::simd::{self, Level, per_level};
use crate::transpose::transpose;

/// A +-1 matrix, one bit a number.
#[derive(Clone, Debug)]
pub struct Rows {
    rows: usize,
    cols: usize,
    nan: bool,
    /// Whole words for each row; what they have beyond the last column is clear.
    words: Vec<u64>,
}

impl Rows {
    /// The signs of `x`, `rows` by `cols`, row by row.
    ///
    /// # Panics
    /// If `x` has another length, or a size is zero.
    #[track_caller]
    pub fn pack(rows: usize, cols: usize, x: &[f32]) -> Rows {
        assert!(rows > 0 && cols > 0, "bits::Rows::pack: {rows} by {cols}");
        assert_eq!(x.len(), rows * cols, "bits::Rows::pack: x of {rows} by {cols}");
        let mut words = vec![0; rows * cols.div_ceil(64)];
        let nan = pack_rows(cols, x, &mut words);
        Rows { rows, cols, nan, words }
    }

    /// Writes +-1.0, row by row.
    ///
    /// # Panics
    /// If `y` has another length.
    #[track_caller]
    pub fn unpack(&self, y: &mut [f32]) {
        let (rows, cols) = (self.rows, self.cols);
        assert_eq!(y.len(), rows * cols, "bits::Rows::unpack: y of {rows} by {cols}");
        let level = simd::level();
        let some = (par::GRAIN / cols).max(1);
        par::chunks(y, some * cols, |i, y| {
            for (j, y) in y.chunks_mut(cols).enumerate() {
                unpack_row(level, self.row(i * some + j), y);
            }
        });
    }

    /// Rows and columns.
    pub fn size(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    /// Words of the rows from `row` on.
    pub(super) fn words_from(&self, row: usize) -> &[u64] {
        &self.words[row * self.cols.div_ceil(64)..]
    }

    /// Bytes of memory it holds.
    pub fn bytes(&self) -> usize {
        self.words.capacity() * size_of::<u64>()
    }

    /// Whether a NaN was packed (as +1).
    pub fn has_nan(&self) -> bool {
        self.nan
    }

    fn row(&self, i: usize) -> &[u64] {
        let width = self.cols.div_ceil(64);
        &self.words[i * width..][..width]
    }

    /// The same bits by columns: for each 64 rows, a word for each column.
    fn columns(&self) -> Vec<u64> {
        let width = self.cols.div_ceil(64);
        let mut columns = vec![0; self.rows.div_ceil(64) * self.cols];
        par::chunks(&mut columns, self.cols, |block, columns| {
            let rows = &self.words[64 * block * width..];
            for (i, columns) in columns.chunks_mut(64).enumerate() {
                let mut square = [0; 64];
                for (word, row) in square.iter_mut().zip(rows.chunks_exact(width)) {
                    *word = row[i];
                }
                words::transpose(&mut square);
                columns.copy_from_slice(&square[..columns.len()]);
            }
        });
        columns
    }

    #[track_caller]
    fn check(&self, op: &str, name: &str, rows: usize, cols: usize) {
        assert_eq!((self.rows, self.cols), (rows, cols), "{op}: {name} packed for another shape");
    }
}

/// Rows of `x` and of `w` from which on it pays that [`dense`] lays `w` out for lookups.
pub(super) const MANY: usize = 24;

/// `y[i,j] = Σ_k x[i,k]·w[j,k]` over +-1 matrices, exactly; `x` is `m` by `k`, `w` `n` by `k`, `y` `m` by `n`.
///
/// # Panics
/// If a size differs from these, or `k` is 2^24 or more, to which `f32` does not count.
#[track_caller]
pub fn dense(m: usize, k: usize, n: usize, x: &Rows, w: &Rows, y: &mut [f32]) {
    const OP: &str = "bits::dense";
    x.check(OP, "x", m, k);
    w.check(OP, "w", n, k);
    assert_eq!(y.len(), m * n, "{OP}: y of {m} by {n}");
    assert!(k < 1 << 24, "{OP}: sums of {k} terms are not exact");
    let level = simd::level();
    if m >= MANY && n >= MANY {
        return by_lookup(level, x, w, y);
    }
    let width = k.div_ceil(64);
    let some = (par::GRAIN / width).max(1);
    for (i, y) in y.chunks_exact_mut(n).enumerate() {
        par::chunks(y, some, |j, y| row_sums(level, k, x.row(i), &w.words[j * some * width..], y));
    }
}

/// Rows of `w` as pixels of four-channel bytes, rows of `x` as filters.
fn by_lookup(level: Level, x: &Rows, w: &Rows, y: &mut [f32]) {
    let (k, n) = (x.cols, w.rows);
    let (width, quads) = (k.div_ceil(64), k.div_ceil(4));
    let plane = lookup::apart(n);
    let offsets = plane_offsets(k, n);
    let counts = vec![k as f32; plane];
    let len = 16 * width * plane;
    par::scratch(len / 4 + 16, |scratch| {
        let staged = Stage::aligned(scratch, len);
        par::chunks(staged, 16 * plane, |i, planes| spread(&w.words[i..], width, planes, plane));
        let walk = Walk { x: staged, offsets: &offsets, counts: &counts, area: n, images: 1 };
        let some = 2 * x.rows.div_ceil(2 * par::threads());
        par::chunks(y, some * n, |i, y| {
            let rows = y.len() / n;
            let mut pairs = vec![0; rows.div_ceil(2) * quads];
            for (j, pairs) in pairs.chunks_exact_mut(quads).enumerate() {
                let first = i * some + 2 * j;
                let second = if first + 1 < x.rows { x.row(first + 1) } else { &[] };
                pair(x.row(first), second, pairs);
            }
            lookup::sums(level, &walk, &pairs, rows, 0, y);
        });
    });
}

/// Where the planes of four columns each of `rows` begin.
pub(super) fn plane_offsets(cols: usize, rows: usize) -> Offsets {
    let plane = lookup::apart(rows);
    let offsets = (0..cols.div_ceil(4))
        .map(|q| u32::try_from(q * plane).expect("a matrix of less than 16 GiB as floats"));
    Offsets::new(offsets.collect())
}

/// The first word of each row, as 16 planes of nibbles.
pub(super) fn spread(words: &[u64], width: usize, planes: &mut [u8], plane: usize) {
    for (i, rows) in words.chunks(8 * width).enumerate() {
        let mut square = [0; 8];
        for (word, row) in square.iter_mut().zip(rows.chunks(width)) {
            *word = row[0];
        }
        words::transpose_bytes(&mut square);
        for (b, word) in square.into_iter().enumerate() {
            for (half, nibbles) in [word, word >> 4].into_iter().enumerate() {
                let nibbles = (nibbles & 0x0F0F_0F0F_0F0F_0F0F).to_le_bytes();
                planes[(2 * b + half) * plane + 8 * i..][..8].copy_from_slice(&nibbles);
            }
        }
    }
}

/// Two rows as one of bytes, a nibble from each.
pub(super) fn pair(first: &[u64], second: &[u64], pairs: &mut [u8]) {
    for (i, bytes) in pairs.chunks_mut(16).enumerate() {
        let (first, second) = (first[i], second.get(i).copied().unwrap_or(0));
        for (j, byte) in bytes.iter_mut().enumerate() {
            *byte = (first >> (4 * j) & 15 | (second >> (4 * j) & 15) << 4) as u8;
        }
    }
}

/// `dx[i,k] = Σ_j dy[i,j]·w[j,k]`: the gradient to the +-1 matrix `x` of [`dense`].
///
/// # Panics
/// If a size differs from those of [`dense`].
#[track_caller]
pub fn dense_dx(m: usize, k: usize, n: usize, w: &Rows, dy: &[f32], dx: &mut [f32]) {
    const OP: &str = "bits::dense_dx";
    w.check(OP, "w", n, k);
    assert_eq!(dy.len(), m * n, "{OP}: dy of {m} by {n}");
    assert_eq!(dx.len(), m * k, "{OP}: dx of {m} by {k}");
    let level = simd::level();
    times_signs(level, w, dx, |i, rows, j, len, lanes| {
        let lanes = lanes.as_flattened_mut();
        transpose(level, [rows, len], &dy[i * n + j..], n, lanes, LANES);
    });
}

/// `dw[j,k] = Σ_i dy[i,j]·x[i,k]`: the gradient to the +-1 matrix `w` of [`dense`].
///
/// # Panics
/// If a size differs from those of [`dense`].
#[track_caller]
pub fn dense_dw(m: usize, k: usize, n: usize, x: &Rows, dy: &[f32], dw: &mut [f32]) {
    const OP: &str = "bits::dense_dw";
    x.check(OP, "x", m, k);
    assert_eq!(dy.len(), m * n, "{OP}: dy of {m} by {n}");
    assert_eq!(dw.len(), n * k, "{OP}: dw of {n} by {k}");
    times_signs(simd::level(), x, dw, |j, rows, i, len, lanes| {
        for (lanes, dy) in lanes.iter_mut().zip(dy[i * n..].chunks_exact(n)).take(len) {
            lanes[..rows].copy_from_slice(&dy[j..][..rows]);
        }
    });
}

/// `c = a·b` for +-1 `b`, where `gather(i, rows, j, len, lanes)` gives `a[i..i + rows, j..j + len]` as
/// `lanes[j][i]`, which is zero before.
fn times_signs(
    level: Level,
    b: &Rows,
    c: &mut [f32],
    gather: impl Fn(usize, usize, usize, usize, &mut [[f32; LANES]; SIGNS]) + Sync,
) {
    let k = b.cols;
    let columns = b.columns();
    par::chunks(c, LANES * k, |block, c| {
        let rows = c.len() / k;
        let mut tables = [Four::ZERO; Four::WORD];
        par::scratch(k * LANES, |sums| {
            sums.fill(0.0);
            for (j, words) in columns.chunks_exact(k).enumerate() {
                let first = j * SIGNS;
                let len = SIGNS.min(b.rows - first);
                let mut lanes = [[0.0; LANES]; SIGNS];
                gather(block * LANES, rows, first, len, &mut lanes);
                let lanes = &lanes[..len.next_multiple_of(4)];
                sums::products(level, lanes, words, &mut tables, sums);
            }
            transpose(level, [k, rows], sums, LANES, c, k);
        });
    });
}

per_level! {
    pub(super) fn pack_row[](x: &[f32], words: &mut [u64]) -> bool {
        let mut nan = false;
        for (word, x) in words.iter_mut().zip(x.chunks(64)) {
            let mut bytes = [0; 64];
            for (bytes, x) in bytes.as_chunks_mut().0.iter_mut().zip(x.chunks(words::PIECE)) {
                nan |= words::gather::<FUSED>(x, 0, bytes);
            }
            // What lies beyond the row stays clear.
            let whole = u64::MAX >> (64 - x.len());
            *word = words::word::<FUSED>(&bytes, 0) & whole;
        }
        nan
    }

    fn unpack_row[](words: &[u64], y: &mut [f32]) {
        for (&word, y) in words.iter().zip(y.chunks_mut(64)) {
            words::expand(word, y);
        }
    }

    /// `y[j] = k - 2·(how often x and row j of w differ)`
    pub(super) fn row_sums[](k: usize, x: &[u64], w: &[u64], y: &mut [f32]) {
        for (y, w) in y.iter_mut().zip(w.chunks_exact(x.len())) {
            let differ: u32 = x.iter().zip(w).map(|(x, w)| (x ^ w).count_ones()).sum();
            *y = k as f32 - 2.0 * differ as f32;
        }
    }
}
