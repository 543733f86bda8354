//! The promise: once the scratch memory of a thread has grown, a prepared kernel allocates nothing.

use dirnet_kernels::bits::{
    self, Filters, Pad, Prepared, PreparedDense, Rows, Thresholds, Transform,
};
use dirnet_kernels::norm_act::Activation;
use dirnet_kernels::{Conv, ConvGeom, PoolGeom, conv, gemm, par, pool};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(at, layout) }
    }
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, SeqCst);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn numbers(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 37 + i / 7) % 23) as f32 - 11.0).collect()
}

/// Runs `f` twice.
#[track_caller]
fn nothing_the_second_time(what: &str, mut f: impl FnMut()) {
    f();
    let before = ALLOCATIONS.load(SeqCst);
    f();
    assert_eq!(ALLOCATIONS.load(SeqCst) - before, 0, "{what}");
}

/// One test, since what others allocate meanwhile would be counted too.
#[test]
fn a_second_run_allocates_nothing() {
    let before = ALLOCATIONS.load(SeqCst);
    drop(std::hint::black_box(vec![0u8; 100]));
    assert_eq!(ALLOCATIONS.load(SeqCst) - before, 1, "allocations are counted");
    par::with_threads(1, || {
        convolutions();
        planes();
        dense();
        floats();
    })
    .expect("a thread");
}

fn convolutions() {
    for (n, c, o, size, k, stride, groups) in [
        (1, 64, 128, 14, 3, 1, 1),
        (4, 64, 64, 7, 3, 2, 1),
        (3, 16, 16, 8, 3, 1, 16),
        (1, 12, 6, 9, 3, 1, 2),
        (1, 4000, 3, 3, 3, 1, 1),
    ] {
        let how = Conv::same(k).stride(stride).groups(groups);
        let g = ConvGeom::new(&[n, c, size, size], &[o, c / groups, k, k], how);
        let prepared = Prepared::new(&g, Pad::Zero, &Filters::pack(&g, &numbers(g.w_len())));
        let x = numbers(g.x_len());
        let mut planes = vec![0; prepared.x_len(n)];
        let (mut y, residual) = (vec![0.0; g.y_len()], numbers(g.y_len()));
        let mut signs = vec![0; prepared.signs_len(n)];
        let scale = &numbers(o)[..];
        let thresholds = Thresholds::new(scale, &vec![true; o]);
        let affine = Transform::Affine { scale, a: scale, b: scale, act: Activation::Hardtanh };
        nothing_the_second_time(&format!("{g:?}"), || {
            bits::pack_planes(g.x(), groups, &x, &mut planes);
            let (y, r) = (&mut y[..], Some(&residual[..]));
            prepared.run(n, &planes, &affine, r, Some(y), Some(&mut signs));
            prepared.run(n, &planes, &Transform::Scale { scale }, None, Some(y), None);
            let then = Transform::Threshold(&thresholds);
            prepared.run(n, &planes, &then, None, None, Some(&mut signs));
            prepared.run(1, &planes[..prepared.x_len(1)], &then, None, None, {
                Some(&mut signs[..prepared.signs_len(1)])
            });
        });
    }
}

fn planes() {
    let g = PoolGeom::new(&[2, 10, 9, 9], 3, 2, 1);
    let x = numbers(g.x_len());
    let (mut from, mut to) = (vec![0; 2 * 3 * 81], vec![0; 2 * 3 * g.oh * g.ow]);
    let (mut y, scale) = (vec![0.0; g.x_len()], &numbers(10)[..]);
    let mut largest = vec![0.0; g.y_len()];
    let affine = Transform::Affine { scale, a: scale, b: scale, act: Activation::Relu };
    nothing_the_second_time("planes", || {
        bits::transform(g.x(), &x, &affine, Some(&x), Some(&mut y), Some(&mut from));
        bits::max_pool(&g, &from, &mut to);
        pool::max_pool2d_of(&g, &x, Some(&affine), &mut largest);
    });
}

fn dense() {
    for (n, k, o) in [(3, 700, 130), (30, 130, 70)] {
        let dense = PreparedDense::new(&Rows::pack(o, k, &numbers(o * k)));
        let (x, scale) = (numbers(n * k), &numbers(o)[..]);
        let mut words = vec![0; n * k.div_ceil(64)];
        let (mut y, mut signs) = (vec![0.0; n * o], vec![0; n * o.div_ceil(64)]);
        nothing_the_second_time(&format!("dense {n}x{k}->{o}"), || {
            bits::pack_rows(k, &x, &mut words);
            let then = Transform::Scale { scale };
            dense.run(n, &words, &then, None, Some(&mut y), Some(&mut signs));
        });
    }
}

fn floats() {
    for (n, c, o, size, k, stride, pad, groups) in [
        (1, 3, 8, 30, 7, 2, 3, 1),
        (4, 3, 16, 12, 3, 1, 1, 1),
        (5, 20, 18, 7, 3, 1, 1, 1),
        (1, 64, 70, 14, 1, 2, 0, 1),
        (2, 16, 16, 12, 3, 2, 1, 16),
    ] {
        let how = Conv { stride, pad, dilation: 1, groups };
        let g = ConvGeom::new(&[n, c, size, size], &[o, c / groups, k, k], how);
        let prepared = conv::Prepared::new(&g, &numbers(g.w_len()));
        let (x, mut y) = (numbers(g.x_len()), vec![0.0; g.y_len()]);
        nothing_the_second_time(&format!("{g:?}"), || prepared.run(n, &x, &mut y));
    }
    let (k, o) = (512, 1000);
    let (x, w, mut y) = (numbers(k), numbers(o * k), vec![0.0; o]);
    nothing_the_second_time("dense", || gemm::gemm(1, k, o, &x, false, &w, true, &mut y));
}
