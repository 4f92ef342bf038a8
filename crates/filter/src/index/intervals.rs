//! Intervals by what they contain: a treap by their lower ends, in which each node knows the greatest upper end below it.

use std::cmp::Ordering;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

#[derive(Clone, Debug)]
struct Node {
    /// `None` is below everything.
    low: Option<Box<[u8]>>,
    /// `None` is above everything.
    high: Option<Box<[u8]>>,
    place: usize,
    priority: u64,
    left: Option<usize>,
    right: Option<usize>,
    /// The node at or below this one whose upper end is the greatest.
    farthest: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Intervals {
    nodes: Vec<Node>,
    free: Vec<usize>,
    root: Option<usize>,
    drawn: u64,
}

impl Default for Intervals {
    fn default() -> Self {
        // Intervals come from clients: one that knew the priorities could have the tree grow into a chain.
        let drawn = RandomState::new().hash_one(0_u8);
        Self { nodes: Vec::new(), free: Vec::new(), root: None, drawn }
    }
}

fn compare_high(left: Option<&[u8]>, right: Option<&[u8]>) -> Ordering {
    match (left, right) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => left.cmp(right),
    }
}

impl Intervals {
    pub(super) const fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Spreads a counter over all bits (splitmix64): a tree that is balanced whatever order intervals come in.
    fn draw(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.drawn ^ self.drawn >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    fn node(&self, at: usize) -> &Node {
        &self.nodes[at]
    }

    fn refresh(&mut self, at: usize) {
        let mut farthest = at;
        let children = [self.node(at).left, self.node(at).right];
        for child in children.into_iter().flatten() {
            let candidate = self.node(child).farthest;
            let (one, other) = (self.node(candidate).high.as_deref(), self.node(farthest).high.as_deref());
            if compare_high(one, other).is_gt() {
                farthest = candidate;
            }
        }
        self.nodes[at].farthest = farthest;
    }

    fn compare(&self, at: usize, low: Option<&[u8]>, place: usize) -> Ordering {
        let node = self.node(at);
        node.low.as_deref().cmp(&low).then_with(|| node.place.cmp(&place))
    }

    /// What is before `(low, place)`, and what is not.
    fn split(
        &mut self,
        tree: Option<usize>,
        low: Option<&[u8]>,
        place: usize,
    ) -> (Option<usize>, Option<usize>) {
        let Some(at) = tree else { return (None, None) };
        if self.compare(at, low, place).is_lt() {
            let (before, after) = self.split(self.node(at).right, low, place);
            self.nodes[at].right = before;
            self.refresh(at);
            (Some(at), after)
        } else {
            let (before, after) = self.split(self.node(at).left, low, place);
            self.nodes[at].left = after;
            self.refresh(at);
            (before, Some(at))
        }
    }

    fn merge(&mut self, before: Option<usize>, after: Option<usize>) -> Option<usize> {
        let (Some(one), Some(other)) = (before, after) else { return before.or(after) };
        if self.node(one).priority >= self.node(other).priority {
            let right = self.merge(self.node(one).right, after);
            self.nodes[one].right = right;
            self.refresh(one);
            Some(one)
        } else {
            let left = self.merge(before, self.node(other).left);
            self.nodes[other].left = left;
            self.refresh(other);
            Some(other)
        }
    }

    pub(super) fn insert(&mut self, low: Option<&[u8]>, high: Option<&[u8]>, place: usize) {
        let priority = self.draw();
        let at = self.free.pop().unwrap_or(self.nodes.len());
        let (left, right) = (None, None);
        let node = Node {
            low: low.map(Box::from),
            high: high.map(Box::from),
            place,
            priority,
            left,
            right,
            farthest: at,
        };
        if at == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[at] = node;
        }
        let (before, after) = self.split(self.root, low, place);
        let before = self.merge(before, Some(at));
        self.root = self.merge(before, after);
    }

    pub(super) fn remove(&mut self, low: Option<&[u8]>, place: usize) {
        let (before, rest) = self.split(self.root, low, place);
        let (found, after) = match place.checked_add(1) {
            Some(next) => self.split(rest, low, next),
            None => (rest, None),
        };
        // A predicate may have several intervals with the same lower end.
        let mut gone: Vec<usize> = found.into_iter().collect();
        while let Some(at) = gone.pop() {
            let node = self.node(at);
            gone.extend(node.left.into_iter().chain(node.right));
            self.free.push(at);
        }
        self.root = self.merge(before, after);
    }

    /// The places of all intervals that contain `value`.
    pub(super) fn at(&self, value: &[u8], places: &mut Vec<usize>) {
        let mut open: Vec<usize> = self.root.into_iter().collect();
        while let Some(at) = open.pop() {
            let node = self.node(at);
            let reaches = |high: Option<&[u8]>| high.is_none_or(|high| high >= value);
            if !reaches(self.node(node.farthest).high.as_deref()) {
                continue;
            }
            open.extend(node.left);
            if node.low.as_deref().is_none_or(|low| low <= value) {
                if reaches(node.high.as_deref()) {
                    places.push(node.place);
                }
                open.extend(node.right);
            }
        }
    }

    /// The places of all intervals.
    pub(super) fn all(&self, places: &mut Vec<usize>) {
        let mut open: Vec<usize> = self.root.into_iter().collect();
        while let Some(at) = open.pop() {
            let node = self.node(at);
            places.push(node.place);
            open.extend(node.left.into_iter().chain(node.right));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::Intervals;

    #[test]
    fn what_is_removed_leaves_no_room_taken_and_the_tree_is_flat_whatever_comes() {
        let mut tree = Intervals::default();
        for round in 0..100 {
            tree.insert(None, Some(&[5]), 7);
            tree.insert(None, Some(&[9]), 7);
            tree.remove(None, 7);
            assert!(tree.nodes.len() <= 2 && tree.is_empty(), "round {round}");
        }
        // In the order of the priorities that a counter from 0 gives: a chain, if they were known.
        let mut ranks: Vec<(u64, u32)> = {
            let mut known = Intervals { drawn: 0, ..Intervals::default() };
            (0..20_000).map(|index| (known.draw(), index)).collect()
        };
        ranks.sort_unstable();
        let mut lows = vec![0_u32; ranks.len()];
        for (rank, (_, index)) in ranks.iter().enumerate() {
            lows[*index as usize] = rank as u32;
        }
        let mut tree = Intervals::default();
        for (place, low) in lows.iter().enumerate() {
            tree.insert(Some(&low.to_be_bytes()), None, place);
        }
        let depth = |tree: &Intervals| {
            let mut deepest = 0;
            let mut open: Vec<(usize, u32)> = tree.root.map(|root| (root, 1)).into_iter().collect();
            while let Some((at, depth)) = open.pop() {
                deepest = deepest.max(depth);
                let node = tree.node(at);
                open.extend(node.left.into_iter().chain(node.right).map(|child| (child, depth + 1)));
            }
            deepest
        };
        assert!(depth(&tree) < 100, "{}", depth(&tree));
    }

    proptest! {
        #[test]
        fn intervals_are_found_as_by_looking_at_all(
            intervals in proptest::collection::vec((any::<Option<u8>>(), any::<Option<u8>>(), any::<bool>()), 0..80),
            value in any::<u8>(),
        ) {
            let mut tree = Intervals::default();
            let end = |end: Option<u8>| end.map(|end| [end]);
            for (place, (low, high, _)) in intervals.iter().enumerate() {
                tree.insert(end(*low).as_ref().map(<[u8; 1]>::as_slice), end(*high).as_ref().map(<[u8; 1]>::as_slice), place);
            }
            for (place, (low, _, kept)) in intervals.iter().enumerate() {
                if !kept {
                    tree.remove(end(*low).as_ref().map(<[u8; 1]>::as_slice), place);
                }
            }
            let mut found = Vec::new();
            tree.at(&[value], &mut found);
            found.sort_unstable();
            let contains = |(low, high, kept): &(Option<u8>, Option<u8>, bool)| {
                *kept && low.is_none_or(|low| low <= value) && high.is_none_or(|high| high >= value)
            };
            let expected: Vec<usize> =
                intervals.iter().enumerate().filter(|(_, interval)| contains(interval)).map(|(place, _)| place).collect();
            prop_assert_eq!(found, expected);
            let mut all = Vec::new();
            tree.all(&mut all);
            prop_assert_eq!(all.len(), intervals.iter().filter(|(_, _, kept)| *kept).count());
        }
    }
}
