//! Who is to be woken when something concerns a shape. Small, because most shapes have one session.

use std::task::{Context, Poll, Waker};

use walcast_model::Cursor;

/// A session's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ear(u32);

#[derive(Debug, Default)]
struct Place {
    waker: Option<Waker>,
    /// Whether it is in `waiting`.
    is_listed: bool,
}

#[derive(Debug)]
pub(super) struct Ears {
    /// After the newest part that concerns the shape.
    until: Cursor,
    places: Vec<Place>,
    free: Vec<u32>,
    /// Places that have asked since all were woken last.
    waiting: Vec<u32>,
}

impl Ears {
    pub(super) const fn new(until: Cursor) -> Self {
        Self { until, places: Vec::new(), free: Vec::new(), waiting: Vec::new() }
    }

    #[cfg(test)]
    pub(super) const fn until(&self) -> Cursor {
        self.until
    }

    pub(super) fn lend(&mut self) -> Ear {
        Ear(self.free.pop().unwrap_or_else(|| {
            if self.places.is_empty() {
                self.places.reserve_exact(1);
            }
            self.places.push(Place::default());
            u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX)
        }))
    }

    pub(super) fn take_back(&mut self, ear: Ear) {
        if let Some(place) = self.places.get_mut(ear.0 as usize) {
            place.waker = None;
            self.free.push(ear.0);
        }
    }

    pub(super) fn poll(&mut self, ear: Ear, cursor: Cursor, cx: &Context<'_>) -> Poll<()> {
        if self.until > cursor {
            return Poll::Ready(());
        }
        if let Some(place) = self.places.get_mut(ear.0 as usize) {
            match &mut place.waker {
                Some(waker) => waker.clone_from(cx.waker()),
                none => *none = Some(cx.waker().clone()),
            }
            if !std::mem::replace(&mut place.is_listed, true) {
                if self.waiting.is_empty() {
                    self.waiting.reserve_exact(1);
                }
                self.waiting.push(ear.0);
            }
        }
        Poll::Pending
    }

    /// There may be something before `until`: those who are to be woken, without a lock.
    pub(super) fn call(&mut self, until: Cursor) -> Vec<Waker> {
        if self.until >= until {
            return Vec::new();
        }
        self.until = until;
        let places = &mut self.places;
        let wakers = self.waiting.drain(..).filter_map(|ear| {
            let place = places.get_mut(ear as usize)?;
            place.is_listed = false;
            place.waker.take()
        });
        wakers.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll, Wake, Waker};

    use super::Ears;
    use crate::testing::at;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn whoever_asked_is_woken_once_and_whoever_went_is_not() {
        let (one, other) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let wakers = [Waker::from(one.clone()), Waker::from(other.clone())];
        let [first, second] = [0, 1].map(|index| Context::from_waker(&wakers[index]));
        let woken = || [one.0.load(Ordering::Relaxed), other.0.load(Ordering::Relaxed)];
        let mut ears = Ears::new(at(10));
        let (ear, gone) = (ears.lend(), ears.lend());
        assert_eq!(ears.poll(ear, at(10), &first), Poll::Pending);
        assert_eq!(ears.poll(ear, at(10), &first), Poll::Pending);
        assert_eq!(ears.poll(gone, at(10), &second), Poll::Pending);
        ears.call(at(10)).into_iter().for_each(Waker::wake);
        assert_eq!(woken(), [0, 0], "nothing new");
        ears.take_back(gone);
        ears.call(at(20)).into_iter().for_each(Waker::wake);
        assert_eq!(woken(), [1, 0]);
        assert_eq!(ears.poll(ear, at(10), &first), Poll::Ready(()));
        assert_eq!(ears.poll(ear, at(20), &first), Poll::Pending);
        // Whoever comes and goes leaves nothing behind, and its place is taken again.
        for _ in 0..10 {
            let another = ears.lend();
            assert_eq!(another, gone);
            assert_eq!(ears.poll(another, at(20), &second), Poll::Pending);
            ears.take_back(another);
        }
        assert_eq!((ears.places.len(), ears.waiting.len()), (2, 2));
        ears.call(at(30)).into_iter().for_each(Waker::wake);
        assert_eq!(woken(), [2, 0]);
    }
}
