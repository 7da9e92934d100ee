//! What may be said as often as the input is long: the first are told, and the rest is counted.

/// How many are told.
pub const TOLD: usize = 20;

/// Sentences, of which the first are kept.
#[derive(Debug, Clone, Default)]
pub struct Few {
    told: Vec<String>,
    more: usize,
}

impl Few {
    /// Adds one, which is made only where it is kept.
    pub fn push(&mut self, sentence: impl FnOnce() -> String) {
        if self.told.len() < TOLD {
            self.told.push(sentence());
        } else {
            self.more += 1;
        }
    }

    /// Those that are kept, and how many there are beside them.
    #[must_use]
    pub fn into_sentences(mut self) -> Vec<String> {
        if self.more > 0 {
            self.told.push(format!("and {} more", self.more));
        }
        self.told
    }
}

impl Extend<String> for Few {
    fn extend<T: IntoIterator<Item = String>>(&mut self, sentences: T) {
        sentences.into_iter().for_each(|sentence| self.push(|| sentence));
    }
}

impl FromIterator<String> for Few {
    fn from_iter<T: IntoIterator<Item = String>>(sentences: T) -> Self {
        let mut few = Self::default();
        few.extend(sentences);
        few
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_first_twenty_they_are_counted() {
        let of = |count: usize| (0..count).map(|n| n.to_string()).collect::<Few>().into_sentences();
        assert_eq!(of(20).len(), 20);
        assert_eq!(of(1_000).last().unwrap(), "and 980 more");
        assert_eq!(of(1_000)[19], "19");
    }
}
