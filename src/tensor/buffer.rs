//! Memory that returns to a pool when it dies, and a count of what is alive.
//!
//! A training step makes the same tensors again and again. Handing their memory back to the
//! operating system each time costs a page fault for every 4 KiB at the next step; a pool costs
//! nothing. Pool and count belong to a thread: a tape lives on one.

use dirnet_kernels::pages;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Deref;

#[derive(Default)]
struct Pool {
    free: HashMap<usize, Vec<Vec<f32>>>,
    free_bytes: usize,
    /// Signed, since what one thread took another may give back.
    live: isize,
    peak: isize,
}

thread_local!(static POOL: RefCell<Pool> = RefCell::default());

/// What a pool keeps at most for later; beyond it, memory goes back at once.
const KEEP_BYTES: usize = 1 << 30;

/// Smaller buffers are as fast from the allocator.
const SMALLEST: usize = 1024;

fn held(bytes: isize) {
    // A thread that ends may have lost its pool before its last tensor.
    let _ = POOL.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        pool.live += bytes;
        pool.peak = pool.peak.max(pool.live);
    });
}

/// Bytes that tensors, and what operations saved beside them, hold on this thread now.
pub fn live_bytes() -> usize {
    POOL.with_borrow(|pool| pool.live.max(0) as usize)
}

/// The most that [`live_bytes`] has been since [`reset_peak`].
pub fn peak_bytes() -> usize {
    POOL.with_borrow(|pool| pool.peak.max(0) as usize)
}

/// Starts the count of [`peak_bytes`] anew.
pub fn reset_peak() {
    POOL.with_borrow_mut(|pool| pool.peak = pool.live);
}

/// Floats of buffers that the system maps one beside the other, so that even those below a huge page, of
/// 2 MiB on most machines, share one.
const LARGE: usize = 1 << 16;

/// Memory for floats: `len` of `data`, from `first` on.
pub(super) struct Buffer {
    data: Vec<f32>,
    first: usize,
    len: usize,
}

impl Buffer {
    pub(super) fn of(data: Vec<f32>) -> Self {
        held(4 * data.len() as isize);
        Buffer { first: 0, len: data.len(), data }
    }

    /// `len` numbers that are left over from someone else. They begin with a cache line, so that a vector of
    /// a kernel lies in one line, where it would else lie across two.
    pub(super) fn take(len: usize) -> Self {
        let reused = POOL.with_borrow_mut(|pool| {
            let data = pool.free.get_mut(&len)?.pop()?;
            pool.free_bytes -= 4 * data.len();
            Some(data)
        });
        let mut data = reused.unwrap_or_else(|| {
            let mut data = vec![0.0; len + pages::LINE - 1];
            if len >= LARGE {
                pages::huge(&mut data);
            }
            data
        });
        if cfg!(debug_assertions) {
            data.fill(f32::NAN); // whoever does not write every element shall notice
        }
        held(4 * len as isize);
        Buffer { first: pages::before_line(&data), len, data }
    }

    pub(super) fn data(&self) -> &[f32] {
        &self.data[self.first..][..self.len]
    }

    pub(super) fn data_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.first..][..self.len]
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let (data, len) = (std::mem::take(&mut self.data), self.len);
        held(-(4 * len as isize));
        // What came from outside has no room to begin with a line.
        if len < SMALLEST || data.len() < len + pages::LINE - 1 {
            return;
        }
        let bytes = 4 * data.len();
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.free_bytes + bytes <= KEEP_BYTES {
                pool.free_bytes += bytes;
                pool.free.entry(len).or_default().push(data);
            }
        });
    }
}

/// Something an operation saved that is no tensor, packed bits for instance, counted in
/// [`live_bytes`] while it lives.
///
/// ```
/// use dirnet::tensor::{Held, live_bytes};
/// let before = live_bytes();
/// let bits = Held::new(vec![0u8; 100], 100);
/// assert_eq!((bits.len(), live_bytes() - before), (100, 100));
/// drop(bits);
/// assert_eq!(live_bytes(), before);
/// ```
pub struct Held<T> {
    value: T,
    bytes: usize,
}

impl<T> Held<T> {
    /// Counts `value` as `bytes` for as long as it lives.
    pub fn new(value: T, bytes: usize) -> Self {
        held(bytes as isize);
        Held { value, bytes }
    }

    /// Counts `value` as what it says of itself.
    pub(crate) fn by(value: T, bytes: impl Fn(&T) -> usize) -> Self {
        let bytes = bytes(&value);
        Held::new(value, bytes)
    }
}

impl<T> Deref for Held<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        held(-(self.bytes as isize));
    }
}
