//! A counting allocator: what is live in the whole process, and what one thread has asked for. A test binary that wants
//! it says `#[global_allocator] static HEAP: Counting = Counting;`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's allocator, counted.
#[derive(Debug)]
pub struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static ASKED: Cell<usize> = const { Cell::new(0) };
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

fn note(grown: usize) {
    PEAK.fetch_max(LIVE.fetch_add(grown, Relaxed) + grown, Relaxed);
    ASKED.set(ASKED.get() + grown);
    LARGEST.set(LARGEST.get().max(grown));
}

// SAFETY: every call goes to the system's allocator unchanged; the counters allocate nothing and have no destructors.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // while it moves, both are there
        note(size);
        LIVE.fetch_sub(layout.size(), Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Bytes that the process holds now.
pub fn live() -> usize {
    LIVE.load(Relaxed)
}

/// The most bytes it has held since [`restart_peak`].
pub fn peak() -> usize {
    PEAK.load(Relaxed)
}

/// Forgets the peak so far.
pub fn restart_peak() {
    PEAK.store(LIVE.load(Relaxed), Relaxed);
}

/// What `work` asked for on this thread: all bytes together, whether given back or not, and the largest piece.
pub fn asked(work: impl FnOnce()) -> (usize, usize) {
    ASKED.set(0);
    LARGEST.set(0);
    work();
    (ASKED.get(), LARGEST.get())
}
