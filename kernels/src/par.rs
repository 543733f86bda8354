//! The one file that names rayon: work over disjoint pieces of an output, results in order.
//!
//! Nothing here adds floats up. A kernel that sums over pieces asks for their parts with [`map`]
//! and adds those in order, with pieces cut by geometry and never by the number of threads; so the
//! same numbers come out at any number of threads, to the bit.

use crate::pages::{LINE, before_line};
use rayon::prelude::*;
use std::cell::RefCell;

/// Worker threads that a kernel called from here may use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `work` with at most `threads` worker threads, itself on one of them.
///
/// # Errors
/// If the operating system refuses to start the threads.
pub fn with_threads<R: Send>(
    threads: usize,
    work: impl FnOnce() -> R + Send,
) -> Result<R, std::io::Error> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(std::io::Error::other)?;
    Ok(pool.install(work))
}

/// Calls `f(i, piece)` for each consecutive `size` elements of `out`; the last piece may be short.
pub fn chunks<T: Send>(out: &mut [T], size: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let size = size.max(1);
    if out.len() <= size || threads() == 1 {
        out.chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    } else {
        out.par_chunks_mut(size).enumerate().for_each(|(i, piece)| f(i, piece));
    }
}

/// The same over two outputs cut in step: `f(i, piece of a, piece of b)`.
pub fn chunks2<A: Send, B: Send>(
    a: &mut [A],
    size_a: usize,
    b: &mut [B],
    size_b: usize,
    f: impl Fn(usize, &mut [A], &mut [B]) + Sync,
) {
    let (size_a, size_b) = (size_a.max(1), size_b.max(1));
    assert_eq!(a.len().div_ceil(size_a), b.len().div_ceil(size_b), "pieces of two outputs");
    if a.len() <= size_a || threads() == 1 {
        let pieces = a.chunks_mut(size_a).zip(b.chunks_mut(size_b));
        pieces.enumerate().for_each(|(i, (a, b))| f(i, a, b));
    } else {
        let pieces = a.par_chunks_mut(size_a).zip(b.par_chunks_mut(size_b));
        pieces.enumerate().for_each(|(i, (a, b))| f(i, a, b));
    }
}

/// `[f(0), f(1), … f(n-1)]`, computed on the worker threads.
pub fn map<T: Send>(n: usize, f: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if n <= 1 || threads() == 1 {
        (0..n).map(f).collect()
    } else {
        (0..n).into_par_iter().map(&f).collect()
    }
}

/// Outputs that can be cut in two between pieces.
pub trait Cut: Send + Sized {
    /// The first `pieces` of them, and the rest.
    fn cut(self, pieces: usize) -> (Self, Self);
}

/// [`chunks`] of outputs that are more than one slice: `f(i, piece)` for each of `n` pieces of `out`, and
/// whether one of them said true. It allocates nothing on a worker thread.
pub fn any_piece<C: Cut>(n: usize, out: C, f: &(impl Fn(usize, C) -> bool + Sync)) -> bool {
    fn from<C: Cut>(
        first: usize,
        n: usize,
        out: C,
        f: &(impl Fn(usize, C) -> bool + Sync),
    ) -> bool {
        if n == 1 {
            return f(first, out);
        }
        let half = n / 2;
        let (a, b) = out.cut(half);
        let (a, b) = rayon::join(|| from(first, half, a, f), || from(first + half, n - half, b, f));
        a | b
    }
    if n > 1 && threads() > 1 {
        return from(0, n, out, f);
    }
    let (mut rest, mut any) = (out, false);
    for i in 0..n {
        let (piece, later) = rest.cut(1);
        any |= f(i, piece);
        rest = later;
    }
    any
}

/// Elements worth handing to another thread at once in a pass over memory.
pub const GRAIN: usize = 1 << 15;

/// Lends `f` a scratch slice of `len` floats that lives on with the thread and starts with a cache line;
/// its content is whatever the last user left.
pub fn scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    thread_local!(static SCRATCH: RefCell<Vec<Vec<f32>>> = const { RefCell::new(Vec::new()) });
    // Taken out while in use, so that a nested call finds another one.
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < len + LINE - 1 {
        buffer.resize(len + LINE - 1, 0.0);
    }
    let first = before_line(&buffer);
    let result = f(&mut buffer[first..][..len]);
    SCRATCH.with_borrow_mut(|free| free.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A slice in pieces of three, the last of which may be short.
    struct Threes<'a>(&'a mut [usize]);

    impl Cut for Threes<'_> {
        fn cut(self, pieces: usize) -> (Self, Self) {
            let at = self.0.len().min(3 * pieces);
            let (a, b) = self.0.split_at_mut(at);
            (Threes(a), Threes(b))
        }
    }

    #[test]
    fn scratch_starts_with_a_cache_line() {
        let place = |x: &[f32]| x.as_ptr().addr() % 64;
        for len in [0, 1, 100, 7, 5000] {
            scratch(len, |outer| {
                let inner = scratch(len + 1, |inner| (inner.len(), place(inner)));
                assert_eq!((outer.len(), place(outer), inner), (len, 0, (len + 1, 0)));
            });
        }
    }

    #[test]
    fn each_piece_comes_once_and_any_may_speak() {
        for (len, threads) in [(1, 1), (3, 2), (10, 1), (10, 2), (31, 3)] {
            let pieces = usize::div_ceil(len, 3);
            for speaker in 0..=pieces {
                let mut out = vec![usize::MAX; len];
                let said = with_threads(threads, || {
                    any_piece(pieces, Threes(&mut out), &|i, piece| {
                        piece.0.iter_mut().for_each(|x| *x = x.wrapping_add(1 + i));
                        i == speaker
                    })
                });
                assert_eq!(said.expect("threads"), speaker < pieces);
                assert!(out.iter().enumerate().all(|(i, &piece)| piece == i / 3), "{out:?}");
            }
        }
    }
}
