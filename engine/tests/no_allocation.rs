//! The promise: a network that has seen one image allocates nothing for the next ones.

use dirnet_engine::{Net, Packed};
use dirnet_kernels::par;
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
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, since what others allocate meanwhile would be counted too.
#[test]
fn nothing_is_allocated_after_the_first_image() {
    for seed in ["mlp", "resnet20", "mobilenet", "darts"] {
        let path = format!("{}/../fuzz/seeds/{seed}.dirnet", env!("CARGO_MANIFEST_DIR"));
        let packed = Packed::from_bytes(&std::fs::read(path).unwrap()).unwrap();
        for batch in [1, 3] {
            let mut net = Net::new(packed.graph.clone(), batch).unwrap();
            let images = vec![0.5; batch * net.input().iter().product::<usize>()];
            par::with_threads(1, || {
                let first = net.run(&images).to_vec();
                let before = ALLOCATIONS.load(SeqCst);
                let again = net.run(&images);
                assert_eq!(ALLOCATIONS.load(SeqCst) - before, 0, "{seed}, {batch} images");
                assert_eq!(again, first);
            })
            .unwrap();
        }
    }
}
