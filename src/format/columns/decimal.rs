//! Doubles that were written as decimal fractions: prices, measurements, coordinates.

use super::bytes::{Damaged, Read};
use super::layout::{Source, eights};

/// 10 to the power of 0 to 6, all of them exact.
const POWERS: [f64; 7] = [1., 10., 100., 1e3, 1e4, 1e5, 1e6];

/// Beyond this, doubles do not represent all integers exactly.
const LARGEST: f64 = 9e15;

/// Replaces the bits of doubles by integers, if all of them are integers over one power of ten.
/// Returns the power's exponent, or `None` without any change. Every value must be restored bit for
/// bit: `-0.0` and `NaN` are not.
pub(super) fn whole(words: &mut Vec<u64>) -> Option<u8> {
    let fit = |bits: u64, power: f64| {
        let scaled = f64::from_bits(bits) * power;
        // Also false for NaN.
        if scaled.abs() < LARGEST {
            let number = scaled.round_ties_even() as i64;
            (double(number, power).to_bits() == bits).then_some(number as u64)
        } else {
            None
        }
    };
    let step = (words.len() / 32).max(1);
    let suits = |power: f64| words.iter().step_by(step).all(|&bits| fit(bits, power).is_some());
    let exponent = POWERS.iter().position(|&power| suits(power))?;
    *words = words.iter().map(|&bits| fit(bits, POWERS[exponent])).collect::<Option<_>>()?;
    Some(exponent as u8)
}

fn double(number: i64, power: f64) -> f64 {
    number as f64 / power
}

impl Source<'_> {
    /// Reads `count` doubles.
    pub(super) fn decimals(&mut self, count: usize) -> Read<Vec<u8>> {
        let exponent = usize::from(self.directory.byte()?);
        let &power = POWERS.get(exponent).ok_or(Damaged("a column in it has an impossible exponent"))?;
        let layout = self.directory.byte()?;
        let mut numbers = self.integers(layout, count)?;
        self.spend(count, 8)?;
        numbers.iter_mut().for_each(|number| *number = double(*number as i64, power).to_bits());
        Ok(eights(&numbers))
    }
}
