//! The numbers of a model, in one table: names, values, roles.

use crate::{Error, Tensor};
use std::collections::HashMap;
use std::path::Path;

/// Names one entry of a [`Params`]; valid for the table that gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(pub(crate) usize);

/// What a number is to training: decay, clipping and packing ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Learned, and used as it is.
    Weight,
    /// Learned, real-valued, and used only through its sign.
    Latent,
    /// Not learned by gradient, but part of the model: running statistics.
    Buffer,
}

/// One entry of the table.
#[derive(Clone, Debug)]
pub struct Param {
    /// As PyTorch would name it: `layer1.0.conv1.weight`.
    pub name: String,
    /// What it is to training.
    pub role: Role,
    /// A frozen entry is a constant to every tape.
    pub frozen: bool,
    /// Its numbers.
    pub value: Tensor,
}

/// All numbers of a model. Layers are made with it, and keep only [`ParamId`]s.
///
/// ```
/// use dirnet::{Params, Role, Tensor};
/// let mut params = Params::new();
/// let w = params.add("fc.weight", Role::Weight, Tensor::zeros([10, 64]));
/// assert_eq!(params[w].value.shape(), [10, 64]);
/// assert_eq!(params.id("fc.weight"), Some(w));
/// assert_eq!(params.count(), 640);
/// ```
#[derive(Clone, Debug, Default)]
pub struct Params {
    entries: Vec<Param>,
    by_name: HashMap<String, ParamId>,
    /// Numbers that entries of these names begin with.
    start: HashMap<String, Tensor>,
}

impl Params {
    /// An empty table.
    pub fn new() -> Self {
        Params::default()
    }

    /// An empty table, whose entries begin with the numbers of another one where name and shape agree:
    /// whatever numbers they are added with.
    ///
    /// ```
    /// use dirnet::{Params, Role, Tensor};
    /// let mut before = Params::new();
    /// before.add("a", Role::Weight, Tensor::from([1.0, 2.0]));
    /// let mut params = Params::starting_from(&before);
    /// let a = params.add("a", Role::Latent, Tensor::zeros([2]));
    /// let b = params.add("b", Role::Weight, Tensor::zeros([2]));
    /// assert_eq!((params[a].value[1], params[b].value[1]), (2.0, 0.0));
    /// ```
    pub fn starting_from(other: &Params) -> Self {
        let start = other.entries.iter().map(|p| (p.name.clone(), p.value.clone())).collect();
        Params { start, ..Params::default() }
    }

    /// Adds an entry.
    ///
    /// # Panics
    /// If the name is taken: two layers would then share it unknowingly.
    #[track_caller]
    pub fn add(&mut self, name: impl Into<String>, role: Role, value: Tensor) -> ParamId {
        let name = name.into();
        let fits = |x: &Tensor| x.shape() == value.shape();
        let value = self.start.remove(&name).filter(fits).unwrap_or(value);
        let id = ParamId(self.entries.len());
        let before = self.by_name.insert(name.clone(), id);
        assert!(before.is_none(), "params: the name {name} is taken");
        self.entries.push(Param { name, role, frozen: false, value });
        id
    }

    /// The entry of that name.
    pub fn id(&self, name: &str) -> Option<ParamId> {
        self.by_name.get(name).copied()
    }
    /// Entries, buffers included.
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
    /// Numbers that are learned, buffers not included.
    pub fn count(&self) -> usize {
        self.iter().filter(|(_, p)| p.role != Role::Buffer).map(|(_, p)| p.value.len()).sum()
    }
    /// All entries, in the order they were made.
    pub fn iter(&self) -> impl Iterator<Item = (ParamId, &Param)> {
        self.entries.iter().enumerate().map(|(i, p)| (ParamId(i), p))
    }
    /// Puts new numbers into an entry.
    ///
    /// # Panics
    /// If the shape is another one.
    #[track_caller]
    pub fn set(&mut self, id: ParamId, value: Tensor) {
        let entry = &mut self.entries[id.0];
        assert_eq!(entry.value.shape(), value.shape(), "params: the shape of {}", entry.name);
        entry.value = value;
    }
    /// The numbers of an entry, to be changed in place.
    pub fn value_mut(&mut self, id: ParamId) -> &mut Tensor {
        &mut self.entries[id.0].value
    }

    /// Makes constants of all entries whose name is `prefix`, or goes on after it with a dot.
    /// Says how many; an empty prefix means all.
    pub fn freeze(&mut self, prefix: &str) -> usize {
        self.set_frozen(prefix, true)
    }
    /// Undoes [`Params::freeze`].
    pub fn unfreeze(&mut self, prefix: &str) -> usize {
        self.set_frozen(prefix, false)
    }

    fn set_frozen(&mut self, prefix: &str, frozen: bool) -> usize {
        let inside = |name: &str| match name.strip_prefix(prefix) {
            Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('.'),
            None => false,
        };
        let mut count = 0;
        for entry in self.entries.iter_mut().filter(|p| inside(&p.name)) {
            entry.frozen = frozen;
            count += 1;
        }
        count
    }

    /// Writes all entries by name to an `npz` file that NumPy reads.
    ///
    /// # Errors
    /// If the file can't be written; what stood there before is then untouched.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let arrays = self.entries.iter().map(|p| (p.name.as_str(), &p.value));
        crate::npz::save(path.as_ref(), arrays, &[])
    }

    /// Reads values by name from an `npz` file, all or none.
    ///
    /// # Errors
    /// If the file can't be read, or entries are missing, of another shape, or unknown here: all
    /// of them are listed, and nothing is changed.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        let path = path.as_ref();
        let file = crate::npz::load(path)?;
        self.assign(path, file.arrays)
    }

    /// Takes over the values of another table, entry by entry of the same name.
    ///
    /// # Errors
    /// As for [`Params::load`]; `path` is where the other table comes from.
    pub(crate) fn copy_from(&mut self, other: &Params, path: &Path) -> Result<(), Error> {
        let values = other.entries.iter().map(|p| (p.name.clone(), p.value.clone()));
        self.assign(path, values.collect())
    }

    pub(crate) fn assign(
        &mut self,
        path: &Path,
        mut arrays: HashMap<String, Tensor>,
    ) -> Result<(), Error> {
        let mut wrong = Vec::new();
        let mut values = Vec::with_capacity(self.len());
        for entry in &self.entries {
            match arrays.remove(&entry.name) {
                None => wrong.push(format!("{} is missing", entry.name)),
                Some(value) if value.shape() != entry.value.shape() => wrong.push(format!(
                    "{} has shape {:?}, expected {:?}",
                    entry.name,
                    value.shape(),
                    entry.value.shape()
                )),
                Some(value) => values.push(value),
            }
        }
        let mut unknown: Vec<_> = arrays.into_keys().collect();
        unknown.sort();
        wrong.extend(unknown.into_iter().map(|name| format!("{name} is not part of this model")));
        if !wrong.is_empty() {
            return Err(Error::file(path, format!("does not fit the model: {}", wrong.join("; "))));
        }
        for (entry, value) in self.entries.iter_mut().zip(values) {
            entry.value = value;
        }
        Ok(())
    }
}

impl std::ops::Index<ParamId> for Params {
    type Output = Param;
    fn index(&self, id: ParamId) -> &Param {
        &self.entries[id.0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn freezing_goes_by_whole_names() {
        let mut params = Params::new();
        for name in ["stem.weight", "stem.bias", "stem2.weight"] {
            params.add(name, Role::Weight, Tensor::zeros([1]));
        }
        assert_eq!(params.freeze("stem"), 2);
        assert!(!params[params.id("stem2.weight").unwrap()].frozen);
        assert_eq!(params.unfreeze(""), 3);
    }

    #[test]
    fn loading_lists_everything_that_does_not_fit_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.npz");
        let mut other = Params::new();
        other.add("a", Role::Weight, Tensor::full([2], 1.0));
        other.add("b", Role::Weight, Tensor::full([2], 1.0));
        other.save(&path).unwrap();

        let mut params = Params::new();
        params.add("a", Role::Weight, Tensor::zeros([2]));
        params.add("b", Role::Weight, Tensor::zeros([3]));
        params.add("c", Role::Weight, Tensor::zeros([1]));
        let message = params.load(&path).unwrap_err().to_string();
        assert!(message.contains("b has shape [2], expected [3]"), "{message}");
        assert!(message.contains("c is missing"), "{message}");
        assert_eq!(params[ParamId(0)].value[0], 0.0);

        other.load(&path).unwrap();
        assert_eq!(other[ParamId(1)].value, Tensor::full([2], 1.0));
    }
}
