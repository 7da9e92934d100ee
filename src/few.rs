//! Keeps lists short whose length depends on the input: the first entries are kept, the rest are
//! counted.

/// How many are kept.
pub const TOLD: usize = 20;
/// The longest text for one entry, in characters.
const LONGEST: usize = 2_000;
/// How many are kept if each is a loss that somebody may have to look into.
pub const LISTED: usize = 1_000;

/// Sentences, of which the first are kept.
#[derive(Debug, Clone)]
pub struct Few {
    most: usize,
    told: Vec<String>,
    more: usize,
}

impl Default for Few {
    fn default() -> Self {
        Self::up_to(TOLD)
    }
}

impl Few {
    /// Keeps up to `most` of them.
    #[must_use]
    pub fn up_to(most: usize) -> Self {
        Self { most, told: Vec::new(), more: 0 }
    }

    /// Adds a sentence, which is built only if it is kept.
    pub fn push(&mut self, sentence: impl FnOnce() -> String) {
        if self.told.len() < self.most {
            self.told.push(sentence());
        } else {
            self.more += 1;
        }
    }

    /// The kept sentences, and how many there are beside them.
    #[must_use]
    pub fn into_sentences(mut self) -> Vec<String> {
        if self.more > 0 {
            self.told.push(and_more(self.more));
        }
        self.told
    }
}

/// The sentence for those that are not kept.
#[must_use]
pub fn and_more(count: usize) -> String {
    format!("and {} more", with_commas(count))
}

/// The text, cut to a readable length: an error may quote a file of any size.
#[must_use]
pub fn cut(what: &impl std::fmt::Display) -> String {
    let mut text = what.to_string();
    if let Some((end, _)) = text.char_indices().nth(LONGEST) {
        let left = with_commas(text.len() - end);
        text.truncate(end);
        text += &format!("… (and {left} bytes more)");
    }
    text
}

/// A number as people write it: `1,234,567`.
fn with_commas(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
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
        assert_eq!(of(1_234_587).last().unwrap(), "and 1,234,567 more");
        assert_eq!(cut(&"ü".repeat(LONGEST)), "ü".repeat(LONGEST));
        assert!(cut(&"ü".repeat(1_000_000)).ends_with("ü… (and 1,996,000 bytes more)"));
        let mut listed = Few::up_to(LISTED);
        listed.extend((0..LISTED).map(|n| n.to_string()));
        assert_eq!(listed.into_sentences().len(), LISTED);
    }
}
