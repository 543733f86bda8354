//! Things chosen by name: `resnet20(shortcut=bireal)`, `dte(eps=0.2)`, `dir-net+1w32a`.

use crate::Error;
use crate::error::{near_miss, unknown};
use std::fmt;
use std::str::FromStr;

/// A name, options in brackets, and what is added with a plus.
///
/// ```
/// use dirnet::Spec;
/// let spec: Spec = "resnet20(shortcut=bireal, width=0.5)".parse()?;
/// assert_eq!(spec.name, "resnet20");
/// assert_eq!(spec.to_string(), "resnet20(shortcut=bireal,width=0.5)");
/// # Ok::<(), dirnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Before the brackets.
    pub name: String,
    /// Keys and values, in the order written.
    pub options: Vec<(String, String)>,
    /// What follows after a plus each.
    pub plus: Vec<String>,
}

impl FromStr for Spec {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        let fail = |why: &str| {
            Error::Setting(format!("\"{text}\": {why}; expected NAME or NAME(key=value, …)"))
        };
        let (head, plus) = match text.rfind(')') {
            Some(end) => {
                let rest = text[end + 1..].trim();
                if !rest.is_empty() && !rest.starts_with('+') {
                    return Err(fail("something follows the bracket"));
                }
                (&text[..=end], rest.strip_prefix('+').unwrap_or(rest))
            }
            // An addition is a plus with something behind it: `xnor-net++` is a name.
            None => {
                let mut pluses =
                    text.match_indices('+').map(|(at, _)| (&text[..at], &text[at + 1..]));
                let addition =
                    |(_, rest): &(&str, &str)| !rest.is_empty() && !rest.starts_with('+');
                pluses.find(addition).unwrap_or((text, ""))
            }
        };
        let (name, inside) = match head.split_once('(') {
            Some((name, rest)) => {
                (name, rest.strip_suffix(')').ok_or_else(|| fail("the bracket is not closed"))?)
            }
            None => (head, ""),
        };
        let name = name.trim();
        if name.is_empty() || name.contains(')') {
            return Err(fail("no name"));
        }
        let mut options = Vec::new();
        for option in inside.split(',').map(str::trim).filter(|o| !o.is_empty()) {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| fail(&format!("\"{option}\" has no value")))?;
            options.push((key.trim().to_string(), value.trim().to_string()));
        }
        let plus = plus.split('+').map(str::trim).filter(|p| !p.is_empty());
        Ok(Spec { name: name.to_string(), options, plus: plus.map(String::from).collect() })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if !self.options.is_empty() {
            let options: Vec<_> = self.options.iter().map(|(k, v)| format!("{k}={v}")).collect();
            write!(f, "({})", options.join(","))?;
        }
        self.plus.iter().try_for_each(|p| write!(f, "+{p}"))
    }
}

/// The options of a [`Spec`], asked for one by one; what nobody asked for is refused at the end.
#[derive(Debug)]
pub struct Options<'a> {
    spec: &'a Spec,
    asked: Vec<&'static str>,
}

impl<'a> Options<'a> {
    /// Of this thing.
    pub fn of(spec: &'a Spec) -> Self {
        Options { spec, asked: Vec::new() }
    }

    /// The value of a key, or what stands where it is not given.
    ///
    /// # Errors
    /// If the value is not of this type.
    pub fn get<T: FromStr>(&mut self, key: &'static str, default: T) -> Result<T, Error> {
        self.asked.push(key);
        match self.spec.options.iter().rev().find(|(k, _)| k == key) {
            None => Ok(default),
            Some((_, value)) => value.parse().map_err(|_| {
                Error::Setting(format!(
                    "{}: {key} is \"{value}\", expected a {}",
                    self.spec.name,
                    kind::<T>()
                ))
            }),
        }
    }

    /// The same for a number that must lie in a range.
    ///
    /// # Errors
    /// If it is no number, or outside.
    pub fn number(
        &mut self,
        key: &'static str,
        default: f32,
        range: std::ops::RangeInclusive<f32>,
    ) -> Result<f32, Error> {
        let value = self.get(key, default)?;
        if range.contains(&value) {
            return Ok(value);
        }
        Err(Error::Setting(format!(
            "{}: {key} is {value}, expected {} to {}",
            self.spec.name,
            range.start(),
            range.end()
        )))
    }

    /// The same for one of a few words.
    ///
    /// # Errors
    /// If it is none of them.
    pub fn word<T: Copy>(
        &mut self,
        key: &'static str,
        default: T,
        words: &[(&str, T)],
    ) -> Result<T, Error> {
        let value = self.get(key, String::new())?;
        if value.is_empty() {
            return Ok(default);
        }
        words.iter().find(|(word, _)| *word == value).map(|(_, meant)| *meant).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            unknown(&format!("{key} of {}", self.spec.name), &value, &words)
        })
    }

    /// Refuses the options that nobody asked for.
    ///
    /// # Errors
    /// If there is one; the message suggests the name that was probably meant.
    pub fn finish(self) -> Result<(), Error> {
        match self.spec.options.iter().find(|(key, _)| !self.asked.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) if self.asked.is_empty() => {
                Err(Error::Setting(format!("{} has no options, found \"{key}\"", self.spec.name)))
            }
            Some((key, _)) => {
                let hint = near_miss(key, self.asked.iter().copied())
                    .map_or(String::new(), |name| format!("; did you mean \"{name}\"?"));
                Err(Error::Setting(format!(
                    "{} has no option \"{key}\"{hint} (known: {})",
                    self.spec.name,
                    self.asked.join(", ")
                )))
            }
        }
    }
}

fn kind<T>() -> &'static str {
    match std::any::type_name::<T>() {
        "f32" | "f64" => "number",
        "bool" => "true or false",
        "usize" | "u64" | "u32" => "whole number",
        _ => "word",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in [
            "mlp",
            "dte(eps=0.2,rule=a)",
            "dir-net+1w32a",
            "a(b=c)+d+e",
            "xnor-net++",
            "xnor-net+++1w32a",
        ] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn nonsense_is_refused_with_what_was_expected() {
        for text in ["", "(a=1)", "a(b=1", "a(b)", "a(b=1)c", ")"] {
            let message = text.parse::<Spec>().unwrap_err().to_string();
            assert!(message.contains("expected NAME"), "{text}: {message}");
        }
    }

    #[test]
    fn options_are_typed_and_none_is_forgotten() {
        let spec: Spec = "dte(epz=0.2)".parse().unwrap();
        let mut options = Options::of(&spec);
        assert_eq!(options.number("eps", 0.1, 0.0..=1.0).unwrap(), 0.1);
        let message = options.finish().unwrap_err().to_string();
        assert!(message.contains("did you mean \"eps\"?"), "{message}");

        let spec: Spec = "dte(eps=much)".parse().unwrap();
        let message = Options::of(&spec).get("eps", 0.1f32).unwrap_err().to_string();
        assert_eq!(message, "dte: eps is \"much\", expected a number");
    }
}
