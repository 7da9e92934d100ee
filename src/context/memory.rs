//! The memory budget: it bounds every buffer whose size depends on the data.
//!
//! A process has one budget, in its [`Context`](super::Context). An operation draws from a part of
//! it. A permit counts against the part, then against the whole, so concurrent operations never
//! exceed the whole together. A permit is taken before the bytes are requested, and given back when
//! it is dropped.
//!
//! To prevent deadlocks, the holder of a permit never waits for another one of the same whole. If
//! data turn out larger than expected, [`MemoryPermit::resize`] books them without waiting, and the
//! next taker waits longer. Takers are served in order of arrival, so a large request is never
//! passed over forever.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

use super::mutex::lock;

/// The default budget of a process: 256 MiB.
pub const DEFAULT_BYTES: u64 = 256 * 1024 * 1024;

/// A number of bytes for all. Cloning shares it.
#[derive(Debug, Clone)]
pub struct MemoryBudget(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    limit: u64,
    state: Mutex<State>,
    whole: Option<Whole>,
}

/// The budget that one is a part of.
#[derive(Debug)]
struct Whole {
    budget: MemoryBudget,
    /// What the operation takes of it beside its permits, while the part exists.
    _fixed: MemoryPermit,
}

#[derive(Debug, Default)]
struct State {
    /// The bytes of permits that are given back soon.
    taken: u64,
    /// The bytes held for long. Nobody waits for them alone.
    set_aside: u64,
    /// The waiting takers, in order of arrival.
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    bytes: u64,
    /// Sent once the bytes are taken. Closed if nobody waits any more.
    let_in: oneshot::Sender<Booking>,
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self::new(DEFAULT_BYTES)
    }
}

impl MemoryBudget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self::of(limit, None)
    }

    fn of(limit: u64, whole: Option<Whole>) -> Self {
        Self(Arc::new(Shared { limit, state: Mutex::default(), whole }))
    }

    /// A part of this budget, with its own limit. What is taken counts against the part, then
    /// against the whole.
    #[must_use]
    pub fn part(&self, limit: u64) -> Self {
        self.part_beside(limit, 0)
    }

    /// The same for an operation that always takes `fixed` bytes beside its permits. They are
    /// booked at once, while the part exists, but never so many that the part alone would not fit.
    /// A single operation always gets its whole limit.
    #[must_use]
    pub fn part_beside(&self, limit: u64, fixed: u64) -> Self {
        let booked = |shared: &Arc<Shared>| Booking { shared: shared.clone(), bytes: 0, is_set_aside: true };
        let mut beside = MemoryPermit { bookings: self.chain().map(booked).collect() };
        beside.resize(fixed.min(self.0.limit.saturating_sub(limit)));
        Self::of(limit, Some(Whole { budget: self.clone(), _fixed: beside }))
    }

    /// Waits until `bytes` fit beside what is taken, and takes them. A request that exceeds the
    /// whole budget, or a part's, is served once nothing else of it is taken except bytes set
    /// aside. So the work goes on, one at a time.
    pub async fn take(&self, bytes: u64) -> MemoryPermit {
        // From the part to the whole: the holder of a permit of the whole waits for nothing.
        let mut bookings = Vec::new();
        for shared in self.chain() {
            bookings.push(Shared::take(shared, bytes).await);
        }
        MemoryPermit { bookings }
    }

    /// This budget, the one that it is a part of, and so on.
    fn chain(&self) -> impl Iterator<Item = &Arc<Shared>> {
        std::iter::successors(Some(self), |budget| budget.0.whole.as_ref().map(|whole| &whole.budget)).map(|budget| &budget.0)
    }

    /// Bytes taken now, including bytes set aside.
    #[cfg(test)]
    fn used(&self) -> u64 {
        let state = self.0.state();
        state.taken + state.set_aside
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    async fn take(shared: &Arc<Self>, bytes: u64) -> Booking {
        loop {
            let (let_in, told) = oneshot::channel();
            let mut place = Place { shared, told };
            shared.state().waiting.push_back(Waiting { bytes, let_in });
            shared.let_in();
            // Only the waiting taker can give up its place, so this is sent.
            if let Ok(booking) = (&mut place.told).await {
                return booking;
            }
        }
    }

    /// Serves the waiting takers, in order, while there is room.
    fn let_in(self: &Arc<Self>) {
        loop {
            let mut state = self.state();
            let Some(bytes) = state.waiting.front().map(|first| first.bytes) else { return };
            if state.taken > 0 && state.taken.saturating_add(state.set_aside).saturating_add(bytes) > self.limit {
                return;
            }
            let Some(first) = state.waiting.pop_front() else { return };
            state.taken += bytes;
            drop(state);
            // If nobody waits there any more, the booking is dropped.
            drop(first.let_in.send(Booking { shared: self.clone(), bytes, is_set_aside: false }));
        }
    }
}

/// A place in the queue, which is left when this is dropped.
struct Place<'a> {
    shared: &'a Arc<Shared>,
    told: oneshot::Receiver<Booking>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.told.close();
        self.shared.state().waiting.retain(|waiting| !waiting.let_in.is_closed());
        // Those behind it may fit.
        self.shared.let_in();
    }
}

/// Bytes taken of one budget, given back when dropped.
#[derive(Debug)]
struct Booking {
    shared: Arc<Shared>,
    bytes: u64,
    is_set_aside: bool,
}

impl Booking {
    fn resize(&mut self, bytes: u64) {
        self.change(|booking| booking.bytes = bytes);
    }

    fn set_aside(&mut self) {
        self.change(|booking| booking.is_set_aside = true);
    }

    /// Removes it from the counts, changes it, and adds it again.
    fn change(&mut self, change: impl FnOnce(&mut Self)) {
        let shared = self.shared.clone();
        {
            let mut state = shared.state();
            *state.holds(self.is_set_aside) -= self.bytes;
            change(self);
            *state.holds(self.is_set_aside) += self.bytes;
        }
        shared.let_in();
    }
}

impl State {
    fn holds(&mut self, is_set_aside: bool) -> &mut u64 {
        if is_set_aside { &mut self.set_aside } else { &mut self.taken }
    }
}

impl Drop for Booking {
    fn drop(&mut self) {
        self.resize(0);
    }
}

/// Bytes of a budget, given back when dropped.
#[derive(Debug)]
pub struct MemoryPermit {
    /// Of the part, then of the whole.
    bookings: Vec<Booking>,
}

impl MemoryPermit {
    /// Changes its size to `bytes`, without waiting.
    pub fn resize(&mut self, bytes: u64) {
        self.bookings.iter_mut().for_each(|booking| booking.resize(bytes));
    }

    /// Marks it as held for long, for as long as an outsider likes. In the whole it now counts as
    /// fixed, so no other operation waits for it alone. In its own part it counts as before.
    pub fn set_aside(&mut self) {
        self.bookings.iter_mut().skip(1).for_each(Booking::set_aside);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use proptest::prelude::*;

    use super::*;

    #[tokio::test]
    async fn a_taker_waits_until_there_is_room() {
        let budget = MemoryBudget::new(100);
        let first = budget.take(70).await;
        let mut second = Box::pin(budget.take(40));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        assert!(second.now_or_never().is_some());
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn more_than_the_whole_is_let_in_alone() {
        let budget = MemoryBudget::new(100);
        let small = budget.take(1).await;
        let mut large = Box::pin(budget.take(1000));
        assert!(large.as_mut().now_or_never().is_none());
        drop(small);
        let large = large.now_or_never().unwrap();
        assert!(budget.take(1).now_or_never().is_none());
        drop(large);
        assert_eq!(budget.used(), 0);
    }

    #[tokio::test]
    async fn growing_does_not_wait_and_is_given_back() {
        let whole = MemoryBudget::new(100);
        let budget = whole.part(90);
        let mut permit = budget.take(10).await;
        permit.resize(500);
        assert_eq!((budget.used(), whole.used()), (500, 500));
        permit.resize(20);
        let other = budget.take(70).now_or_never();
        assert!(other.is_some());
        drop((permit, other));
        assert_eq!((budget.used(), whole.used()), (0, 0));
    }

    #[tokio::test]
    async fn who_came_first_is_let_in_first_and_who_gives_up_stands_in_nobodys_way() {
        let whole = MemoryBudget::new(100);
        let (one, other) = (whole.part(100), whole.part(100));
        let first = one.take(60).await;
        let mut large = Box::pin(other.take(70));
        assert!(large.as_mut().now_or_never().is_none());
        // It would fit, but comes later.
        let mut small = Box::pin(one.take(10));
        assert!(small.as_mut().now_or_never().is_none());
        drop(first);
        let large = large.now_or_never().unwrap();
        let small = small.now_or_never().unwrap();
        drop((large, small));

        let first = one.take(60).await;
        let mut large = Box::pin(other.take(70));
        assert!(large.as_mut().now_or_never().is_none());
        let mut small = Box::pin(one.take(10));
        assert!(small.as_mut().now_or_never().is_none());
        drop(large);
        assert!(small.now_or_never().is_some());
        drop(first);
        // A taker that was served and is not polled any more gives its bytes back.
        let first = one.take(60).await;
        let mut large = Box::pin(other.take(70));
        assert!(large.as_mut().now_or_never().is_none());
        drop(first);
        assert_eq!(whole.used(), 70);
        drop(large);
        assert_eq!((whole.used(), one.used(), other.used()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_part_by_itself_has_its_limit_whatever_is_fixed() {
        let whole = MemoryBudget::new(100);
        let part = whole.part_beside(80, 50);
        assert_eq!(whole.used(), 20);
        let permits = (part.take(40).now_or_never().unwrap(), part.take(40).now_or_never().unwrap());
        assert!(part.take(1).now_or_never().is_none());
        drop((permits, part));
        assert_eq!(whole.used(), 0);
    }

    #[tokio::test]
    async fn what_is_held_for_long_is_not_waited_for_alone_but_counts() {
        let whole = MemoryBudget::new(100);
        let (job, answers) = (whole.part_beside(50, 30), whole.part(50));
        let mut answer = answers.take(40).await;
        let mut large = Box::pin(job.take(60));
        assert!(large.as_mut().now_or_never().is_none());
        answer.set_aside();
        let large = large.now_or_never().unwrap();
        assert_eq!(whole.used(), 130);
        // In its own part it counts as before.
        let mut another = Box::pin(answers.take(20));
        assert!(another.as_mut().now_or_never().is_none());
        drop(large);
        assert!(another.as_mut().now_or_never().is_none());
        drop(answer);
        assert!(another.now_or_never().is_some());
        drop(job);
        assert_eq!(whole.used(), 0);
    }

    /// What is held by all, and by how many.
    #[derive(Default)]
    struct Held(Mutex<(u64, usize)>);

    impl Held {
        async fn take(&self, budget: &MemoryBudget, bytes: u64, limit: u64) {
            let permit = budget.take(bytes).await;
            {
                let mut held = self.0.lock().unwrap();
                *held = (held.0 + bytes, held.1 + 1);
                assert!(held.0 <= limit || held.1 == 1, "{held:?}");
            }
            tokio::task::yield_now().await;
            {
                let mut held = self.0.lock().unwrap();
                *held = (held.0 - bytes, held.1 - 1);
            }
            drop(permit);
        }
    }

    /// Runs operations to their ends, each with a part of this size and takers of these sizes.
    fn work(limit: u64, operations: Vec<(u64, Vec<Vec<u64>>)>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(3).enable_time().build().unwrap();
        let (whole, held) = (MemoryBudget::new(limit), Arc::new(Held::default()));
        let ended = runtime.block_on(async {
            let mut takers = tokio::task::JoinSet::new();
            for (most, sizes) in operations {
                let part = whole.part(most);
                for sizes in sizes {
                    let (part, held) = (part.clone(), held.clone());
                    takers.spawn(async move {
                        for bytes in sizes {
                            held.take(&part, bytes, limit).await;
                            // A taker that gives up.
                            drop(part.take(bytes).now_or_never());
                        }
                    });
                }
            }
            tokio::time::timeout(Duration::from_secs(60), takers.join_all()).await
        });
        assert!(ended.is_ok(), "they wait for each other");
        assert_eq!(whole.used(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn operations_together_keep_within_the_whole(
            sizes in prop::collection::vec(prop::collection::vec(prop::collection::vec(1_u64..130, 1..30), 1..5), 2..4),
            limits in prop::collection::vec(1_u64..120, 4),
        ) {
            work(100, limits.into_iter().zip(sizes).collect());
        }
    }

    #[test]
    fn two_that_need_more_than_half_each_both_come_to_their_ends() {
        work(100, vec![(100, vec![vec![60; 200]; 2]), (100, vec![vec![70; 200]; 2])]);
    }
}
