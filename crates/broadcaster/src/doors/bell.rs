//! Which part of a connection has woken it, so that the others are not asked.
//!
//! A connection waits for many things, and nearly always it is a frame that comes. To ask the others each time costs more
//! than to write that frame.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Rings when there is reason to ask a part of a connection; at first there is.
#[derive(Debug)]
pub(super) struct Bell {
    rope: Arc<Rope>,
    waker: Waker,
}

#[derive(Debug)]
struct Rope {
    has_rung: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.has_rung.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

impl Bell {
    pub(super) fn new() -> Self {
        let rope = Arc::new(Rope { has_rung: AtomicBool::new(true), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&rope)), rope }
    }

    /// Ready when it has rung since it was heard last; whoever asks is woken when it does.
    pub(super) fn poll_rung(&self, cx: &Context<'_>) -> Poll<()> {
        self.rope.task.register(cx.waker());
        // After it has ears: what rings from now on wakes.
        if self.rope.has_rung.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// There is more than was taken.
    pub(super) fn ring(&self) {
        self.rope.has_rung.store(true, Ordering::Release);
    }

    /// What the part is asked with.
    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake, Waker};

    use super::Bell;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn it_is_heard_once_and_wakes_once() {
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let cx = Context::from_waker(&waker);
        let bell = Bell::new();
        assert!(bell.poll_rung(&cx).is_ready(), "at first there is reason to ask");
        assert!(bell.poll_rung(&cx).is_pending());
        bell.context().waker().wake_by_ref();
        bell.context().waker().wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert!(bell.poll_rung(&cx).is_ready());
        assert!(bell.poll_rung(&cx).is_pending());
        bell.ring();
        assert!(bell.poll_rung(&cx).is_ready());
        assert_eq!(count.0.load(Ordering::Relaxed), 1, "who rings for itself is awake");
    }
}
