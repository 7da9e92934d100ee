//! The maximum lengths of the lists in a manifest.

use serde::de::{Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The most names in a list of hosts, databases or patterns.
pub(super) const MOST_NAMES: usize = 100_000;
/// The most collections in a manifest.
pub(super) const MOST_COLLECTIONS: usize = 500_000;
/// The most skipped collections, or exceptions, in a manifest.
pub(super) const MOST_LEFT_OUT: usize = 500_000;
/// The most indexes of a collection. Servers allow 64.
pub(super) const MOST_INDEXES: usize = 4_096;

/// Reads a list of at most this many items: a short text may produce a long one.
pub(super) fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MOST: usize>(from: D) -> Result<Vec<T>, D::Error> {
    struct List<T, const MOST: usize>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for List<T, MOST> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "a list of at most {MOST} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MOST {
                    return Err(A::Error::custom(format!("a list has more than {MOST} items, the limit")));
                }
                list.push(item);
            }
            Ok(list)
        }
    }

    from.deserialize_seq(List::<T, MOST>(std::marker::PhantomData))
}
