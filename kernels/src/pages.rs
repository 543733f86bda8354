//! Where memory lies: in large pages, from the start of a cache line, and near whom.

use std::mem::MaybeUninit;

/// Floats of a cache line.
pub const LINE: usize = 16;

/// Floats before the first that begins a cache line, [`LINE`]` - 1` at most.
///
/// ```
/// use dirnet_kernels::pages;
/// let x = vec![0.0; 100 + pages::LINE - 1];
/// let x = &x[pages::before_line(&x)..][..100];
/// assert_eq!(x.as_ptr().addr() % 64, 0);
/// ```
pub fn before_line(x: &[f32]) -> usize {
    // A platform may decline to say; what starts within a line is no more than slower.
    x.as_ptr().align_offset(size_of::<f32>() * LINE).min(LINE - 1)
}

/// Asks the operating system to back memory with huge pages, where it has them: for large buffers that
/// have just been allocated and not been written to. Kernels walk planes of channels side by side, each
/// in pages of its own, and the table of pages that the machine holds at hand is short.
///
/// It is a wish: what the memory holds is the same, and where it cannot be granted nothing happens.
///
/// ```
/// let mut x = vec![0.0; 1 << 21];
/// dirnet_kernels::pages::huge(&mut x);
/// assert_eq!(x[x.len() - 1], 0.0);
/// ```
pub fn huge(x: &mut [f32]) {
    #[cfg(target_os = "linux")]
    {
        const PAGE: usize = 1 << 12;
        let range = x.as_mut_ptr_range();
        let (start, end) =
            (range.start.addr().next_multiple_of(PAGE), range.end.addr() & !(PAGE - 1));
        if start < end {
            // SAFETY: whole pages inside of a slice that is borrowed for as long; this advice leaves
            // their content alone. A refusal is no failure.
            unsafe {
                let at = range.start.with_addr(start).cast();
                libc::madvise(at, end - start, libc::MADV_HUGEPAGE);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = x;
}

/// Zeros. Memory that the allocator zeroes lies in the cache of the core that asked for it, from where
/// another core has to fetch it before it can write to it; a part that its own worker zeroes does not.
pub(crate) fn zeroed(x: &mut [MaybeUninit<u8>]) -> &mut [u8] {
    x.fill(MaybeUninit::new(0));
    // SAFETY: all of it has just been written.
    unsafe { &mut *(std::ptr::from_mut(x) as *mut [u8]) }
}
