//! What a cell is made of, as a search finds it and a file keeps it.

use super::operation::Operation;
use crate::{Error, Spec, files};
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use toml::{Table, Value};

/// The two kinds of cells of a network: of each, what its nodes add up, two edges a node. An edge is an
/// operation and what it works on: 0 and 1 are the outputs of the two cells before, 2 is the first node
/// of its own, and so on. What all nodes say is the output of the cell, side by side.
///
/// A file has a list of pairs for each:
///
/// ```toml
/// normal = [["sep_conv_3x3", 0], ["sep_conv_3x3", 1], ["skip_connect", 0], ["dil_conv_3x3", 2]]
/// reduce = [["max_pool_3x3", 0], ["max_pool_3x3", 1], ["skip_connect", 2], ["max_pool_3x3", 1]]
/// ```
///
/// and may have a `name`, else its own. What a search notes beside, as the table `search`, is not read.
/// In one line, as a run and a model keep it, the same is
///
/// ```
/// use dirnet::models::Genotype;
/// let text = "mine/sep_conv_3x3:0 skip_connect:1/max_pool_3x3:0 max_pool_3x3:1";
/// let genotype: Genotype = text.parse()?;
/// assert_eq!((genotype.normal.len(), genotype.to_string()), (2, text.to_string()));
/// # Ok::<(), dirnet::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Genotype {
    /// What it is called.
    pub name: String,
    /// The edges of cells that keep the size of the images, two a node.
    pub normal: Vec<(Operation, usize)>,
    /// The same of cells that halve it.
    pub reduce: Vec<(Operation, usize)>,
}

const MOST_NODES: usize = 16;

impl Genotype {
    /// The second-order result of the paper, as its authors' code has it (`quark0/darts`, `DARTS_V2`).
    pub fn darts_v2() -> Self {
        use Operation::{DilConv3, MaxPool3, SepConv3, Skip};
        let normal = [
            [(SepConv3, 0), (SepConv3, 1)],
            [(SepConv3, 0), (SepConv3, 1)],
            [(SepConv3, 1), (Skip, 0)],
            [(Skip, 0), (DilConv3, 2)],
        ];
        let reduce = [
            [(MaxPool3, 0), (MaxPool3, 1)],
            [(Skip, 2), (MaxPool3, 1)],
            [(MaxPool3, 0), (Skip, 2)],
            [(Skip, 2), (MaxPool3, 1)],
        ];
        Genotype { name: "darts_v2".into(), normal: normal.concat(), reduce: reduce.concat() }
    }

    /// That of a file.
    ///
    /// # Errors
    /// If it can't be read, or says something that means nothing: the file and the key are named.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = files::read_text(path)?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name = stem.replace(|c| !of_names(c), "_");
        let table = text.parse::<Table>().map_err(|e| {
            let line = e.span().map_or(1, |span| text[..span.start].lines().count().max(1));
            Error::file(path, format!("line {line}: {}", e.message()))
        })?;
        Genotype::of_table(&name, table).map_err(|e| Error::file(path, e.to_string()))
    }

    fn of_table(name: &str, mut table: Table) -> Result<Self, Error> {
        let name = match table.remove("name") {
            None => name.to_string(),
            Some(Value::String(name)) => name,
            Some(other) => return Err(wrong("name", &other, "a text")),
        };
        let mut edges = |key: &str| match table.remove(key) {
            None => Err(Error::Setting(format!(
                "key \"{key}\" is missing, expected a list of pairs such as [\"sep_conv_3x3\", 0]"
            ))),
            Some(Value::Array(pairs)) => pairs
                .iter()
                .enumerate()
                .map(|(i, pair)| {
                    let key = format!("{key}[{i}]");
                    let expected = "an operation and a number, such as [\"sep_conv_3x3\", 0]";
                    let Some([Value::String(operation), Value::Integer(from)]) =
                        pair.as_array().map(Vec::as_slice)
                    else {
                        return Err(wrong(&key, pair, expected));
                    };
                    let operation = operation
                        .parse()
                        .map_err(|e| Error::Setting(format!("key \"{key}\": {e}")))?;
                    let from = usize::try_from(*from).map_err(|_| wrong(&key, pair, expected))?;
                    Ok((operation, from))
                })
                .collect(),
            Some(other) => Err(wrong(key, &other, "a list of pairs such as [\"sep_conv_3x3\", 0]")),
        };
        let (normal, reduce) = (edges("normal")?, edges("reduce")?);
        table.remove("search");
        if let Some(key) = table.keys().next() {
            return Err(crate::error::unknown("key", key, &["name", "normal", "reduce", "search"]));
        }
        Genotype { name, normal, reduce }.checked()
    }

    /// Itself, if it is one.
    fn checked(self) -> Result<Self, Error> {
        if self.name.is_empty() || !self.name.chars().all(of_names) || self.name.ends_with(".toml")
        {
            return Err(Error::Setting(format!(
                "key \"name\" is \"{}\", expected letters, digits, -, _ and .",
                self.name
            )));
        }
        for (key, edges) in [("normal", &self.normal), ("reduce", &self.reduce)] {
            let n = edges.len();
            if n < 2 || n % 2 != 0 || n > 2 * MOST_NODES {
                return Err(Error::Setting(format!(
                    "key \"{key}\" has {n} edges, expected two for each of 1 to {MOST_NODES} nodes"
                )));
            }
            for (i, (_, from)) in edges.iter().enumerate() {
                let most = 1 + i / 2;
                if *from > most {
                    return Err(Error::Setting(format!(
                        "key \"{key}[{i}]\" works on {from}, expected 0 to {most}: what comes before node {}",
                        2 + i / 2
                    )));
                }
            }
        }
        Ok(self)
    }

    /// The two lists as a file has them.
    pub(crate) fn to_toml(&self) -> String {
        let list = |edges: &[(Operation, usize)]| {
            let node = |edges: &[(Operation, usize)]| {
                let pair =
                    |(operation, from): &(Operation, usize)| format!("[\"{operation}\", {from}]");
                let pairs: Vec<_> = edges.iter().map(pair).collect();
                format!("    {},\n", pairs.join(", "))
            };
            edges.chunks(2).map(node).collect::<String>()
        };
        format!("normal = [\n{}]\nreduce = [\n{}]\n", list(&self.normal), list(&self.reduce))
    }
}

fn of_names(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-_.".contains(c)
}

fn wrong(key: &str, found: &Value, expected: &str) -> Error {
    Error::Setting(format!("key \"{key}\" is {found}, expected {expected}"))
}

impl FromStr for Genotype {
    type Err = Error;
    /// `FILE.toml`, or `NAME/EDGE …/EDGE …` as it prints itself.
    fn from_str(text: &str) -> Result<Self, Error> {
        if text.ends_with(".toml") {
            return Genotype::read(Path::new(text));
        }
        let fail = || {
            Error::Setting(format!(
                "genotype is \"{text}\", expected a file that ends in .toml, or NAME/EDGE …/EDGE … \
                 with edges such as sep_conv_3x3:0"
            ))
        };
        let edges = |list: &str| {
            let edge = |edge: &str| {
                let (operation, from) = edge.split_once(':').ok_or_else(fail)?;
                Ok((operation.parse()?, from.parse().map_err(|_| fail())?))
            };
            list.split_whitespace().map(edge).collect::<Result<Vec<_>, Error>>()
        };
        let parts: Vec<&str> = text.split('/').collect();
        let [name, normal, reduce] = parts[..] else { return Err(fail()) };
        Genotype { name: name.into(), normal: edges(normal)?, reduce: edges(reduce)? }.checked()
    }
}

impl fmt::Display for Genotype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |edges: &[(Operation, usize)]| {
            let edges = edges.iter().map(|(operation, from)| format!("{operation}:{from}"));
            edges.collect::<Vec<_>>().join(" ")
        };
        write!(f, "{}/{}/{}", self.name, line(&self.normal), line(&self.reduce))
    }
}

const OPTION: &str = "genotype";

/// An architecture as it is kept: where it names the file of a genotype, what that says.
///
/// # Errors
/// If the text names nothing, or the file can't be read.
pub fn settled(arch: &str) -> Result<String, Error> {
    let mut spec: Spec = arch.parse()?;
    let mut changed = false;
    for (_, value) in spec.options.iter_mut().filter(|(key, _)| key == OPTION) {
        if value.ends_with(".toml") {
            *value = value.parse::<Genotype>()?.to_string();
            changed = true;
        }
    }
    Ok(if changed { spec.to_string() } else { arch.to_string() })
}

/// An architecture for the name of a folder: of a genotype, how it is called.
pub(crate) fn short(arch: &str) -> String {
    let Ok(mut spec) = arch.parse::<Spec>() else { return arch.to_string() };
    let mut changed = false;
    for (_, value) in spec.options.iter_mut().filter(|(key, _)| key == OPTION) {
        if let Some((name, _)) = value.clone().split_once('/') {
            *value = name.to_string();
            changed = true;
        }
    }
    if changed { spec.to_string() } else { arch.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let published = Genotype::darts_v2();
        assert_eq!(published.to_string().parse::<Genotype>().unwrap(), published);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("darts_v2.toml");
        std::fs::write(&path, published.to_toml() + "[search]\nseed = 3\n").unwrap();
        assert_eq!(Genotype::read(&path).unwrap(), published);
        let arch = format!("darts(layers=3,genotype={})", path.display());
        let kept = settled(&arch).unwrap();
        assert_eq!(kept, format!("darts(layers=3,genotype={published})"));
        assert_eq!(settled(&kept).unwrap(), kept);
        assert_eq!(short(&kept), "darts(layers=3,genotype=darts_v2)");
        assert_eq!(
            short("resnet20(width=0.5, shortcut=bireal)"),
            "resnet20(width=0.5, shortcut=bireal)"
        );
    }

    #[test]
    fn a_file_that_is_wrong_is_named_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("found.toml");
        let good = "reduce = [[\"skip_connect\", 0], [\"skip_connect\", 1]]\n";
        for (text, expected) in [
            ("normal = [", "line 1"),
            ("normal = 3\n", "key \"normal\" is 3, expected a list of pairs"),
            ("", "key \"normal\" is missing"),
            (
                "normal = [[\"skip_connect\", 0], [1, 1]]\n",
                "key \"normal[1]\" is [1, 1], expected an operation and a number",
            ),
            (
                "normal = [[\"sep_conv_3x4\", 0], [\"skip_connect\", 1]]\n",
                "key \"normal[0]\": unknown operation \"sep_conv_3x4\"; did you mean \"sep_conv_3x3\"?",
            ),
            ("normal = [[\"none\", 0], [\"skip_connect\", 1]]\n", "unknown operation \"none\""),
            (
                "normal = [[\"skip_connect\", 0], [\"skip_connect\", 2]]\n",
                "key \"normal[1]\" works on 2, expected 0 to 1",
            ),
            ("normal = [[\"skip_connect\", -1], [\"skip_connect\", 0]]\n", "key \"normal[0]\" is"),
            (
                "normal = [[\"skip_connect\", 0]]\n",
                "key \"normal\" has 1 edges, expected two for each",
            ),
            (
                "name = \"a b\"\nnormal = [[\"skip_connect\", 0], [\"skip_connect\", 0]]\n",
                "key \"name\" is \"a b\"",
            ),
            (
                "normal = [[\"skip_connect\", 0], [\"skip_connect\", 0]]\nreduse = 1\n",
                "did you mean \"reduce\"?",
            ),
        ] {
            std::fs::write(&path, format!("{text}{good}")).unwrap();
            let message = Genotype::read(&path).unwrap_err().to_string();
            assert!(
                message.contains("found.toml: ") && message.contains(expected),
                "{text}: {message}"
            );
        }
        let message = "mine".parse::<Genotype>().unwrap_err().to_string();
        assert!(message.contains("genotype is \"mine\", expected a file"), "{message}");
        assert!(
            "missing.toml".parse::<Genotype>().unwrap_err().to_string().contains("missing.toml")
        );
    }
}
