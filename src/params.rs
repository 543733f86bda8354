//! The numbers of a model, in one table: names, values, roles.

use crate::error::unknown;
use crate::{Error, Tensor, archive};
use dirnet_kernels::reduce::first_non_finite;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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
        let mut count = 0;
        for entry in self.entries.iter_mut().filter(|p| is_inside(&p.name, prefix)) {
            entry.frozen = frozen;
            count += 1;
        }
        count
    }

    /// Writes all entries by name, as 32-bit floats: to a file `.npz` for NumPy, or `.safetensors` for
    /// PyTorch and others. The file's name decides.
    ///
    /// ```
    /// use dirnet::{Params, Role, Tensor};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.safetensors");
    /// let mut params = Params::new();
    /// let w = params.add("fc.weight", Role::Weight, Tensor::full([10, 64], 0.5));
    /// params.save(&path)?; // safetensors.torch.load_file(path)["fc.weight"]
    /// params.set(w, Tensor::zeros([10, 64]));
    /// params.load(&path)?;
    /// assert_eq!(params[w].value[0], 0.5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the file's name ends otherwise, or it can't be written; what stood there before is then
    /// untouched.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), Error> {
        let arrays = self.entries.iter().map(|p| (p.name.as_str(), &p.value));
        archive::save(path.as_ref(), arrays, &[])
    }

    /// Reads values by name from a file `.npz` or `.safetensors`, all or none. Floats of 16 and 64 bits
    /// become such of 32; what PyTorch calls `num_batches_tracked` is passed over.
    ///
    /// # Errors
    /// If the file can't be read, or holds an array that is no float; if entries are missing, of
    /// another shape, not finite, or unknown here: all of them are listed, and nothing is changed.
    pub fn load(&mut self, path: impl AsRef<Path>) -> Result<(), Error> {
        self.load_except(path, &[] as &[&str]).map(|_| ())
    }

    /// [`Params::load`] of all but some entries, such as the head of a network that had other classes:
    /// those called `except`, or so with a dot behind, stay as they are here, whatever the file has
    /// under such names. Gives the names of those that stay.
    ///
    /// ```
    /// use dirnet::{Params, Role, Tensor};
    /// # let dir = tempfile::tempdir()?;
    /// # let path = dir.path().join("model.npz");
    /// let net = |classes| {
    ///     let mut params = Params::new();
    ///     params.add("conv1.weight", Role::Weight, Tensor::full([8, 3, 3, 3], 0.1));
    ///     params.add("fc.weight", Role::Weight, Tensor::full([classes, 8], 0.1));
    ///     params
    /// };
    /// net(1000).save(&path)?;
    /// assert!(net(10).load(&path).is_err());
    /// assert_eq!(net(10).load_except(&path, &["fc"])?, ["fc.weight"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As for [`Params::load`], and if an exception is nowhere to be found.
    pub fn load_except(
        &mut self,
        path: impl AsRef<Path>,
        except: &[impl AsRef<str>],
    ) -> Result<Vec<String>, Error> {
        let path = path.as_ref();
        let mut arrays = archive::load(path)?.arrays;
        let mut stay = BTreeSet::new();
        for prefix in except.iter().map(AsRef::as_ref) {
            let own = self.entries.iter().map(|p| &p.name);
            let own: Vec<&String> = own.filter(|name| is_inside(name, prefix)).collect();
            let before = arrays.len();
            arrays.retain(|name, _| !is_inside(name, prefix));
            if own.is_empty() && arrays.len() == before {
                let mut parts: Vec<&str> =
                    self.entries.iter().filter_map(|p| p.name.split('.').next()).collect();
                parts.dedup();
                return Err(unknown("part of this model", prefix, &parts));
            }
            stay.extend(own);
        }
        let stay: Vec<String> = stay.into_iter().cloned().collect();
        self.assign(arrays, &stay).map_err(|wrong| {
            let way_out = "what is to begin anew can be excepted by name (train --init-except)";
            Error::file(path, format!("{wrong}; {way_out}"))
        })?;
        Ok(stay)
    }

    /// Takes over values by name, for all entries but those that stay.
    ///
    /// # Errors
    /// Lists all that does not fit; nothing is then changed.
    pub(crate) fn assign(
        &mut self,
        mut arrays: HashMap<String, Tensor>,
        stay: &[String],
    ) -> Result<(), String> {
        let wanted = self.entries.iter().enumerate().filter(|(_, p)| !stay.contains(&p.name));
        let (mut wrong, mut missing, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (i, entry) in wanted {
            let (name, expected) = (&entry.name, entry.value.shape());
            match arrays.remove(name) {
                None => missing.push(entry),
                Some(value) if value.shape() != expected => {
                    let found = value.shape();
                    wrong.push(format!("{name} has shape {found:?}, expected {expected:?}"));
                }
                Some(value) if first_non_finite(&value).is_some() => {
                    wrong.push(format!("{name} has a number that is not finite in 32 bits"));
                }
                Some(value) => values.push((i, value)),
            }
        }
        let unknown: BTreeMap<_, _> = arrays.iter().map(|(name, x)| (name, x.shape())).collect();
        wrong.extend(missing.into_iter().map(|entry| {
            let (name, shape) = (&entry.name, entry.value.shape());
            match alike(name, shape, &unknown) {
                Some(other) => format!("{name} {shape:?} is missing ({other} has its shape)"),
                None => format!("{name} {shape:?} is missing"),
            }
        }));
        wrong.extend(
            unknown
                .into_iter()
                .map(|(name, shape)| format!("{name} {shape:?} is not part of this model")),
        );
        if !wrong.is_empty() {
            return Err(format!("does not fit the model: {}", wrong.join("; ")));
        }
        for (i, value) in values {
            self.entries[i].value = value;
        }
        Ok(())
    }
}

/// Whether a name is `prefix`, or goes on after it with a dot; an empty prefix means all.
fn is_inside(name: &str, prefix: &str) -> bool {
    match name.strip_prefix(prefix) {
        Some(rest) => prefix.is_empty() || rest.is_empty() || rest.starts_with('.'),
        None => false,
    }
}

/// Of what a file has beside, the array that a missing one may be called there: of its shape, and
/// with the same last word.
fn alike<'a>(
    name: &str,
    shape: &[usize],
    unknown: &BTreeMap<&'a String, &[usize]>,
) -> Option<&'a String> {
    let last = |name: &str| name.rsplit('.').next().map(str::to_string);
    let fits = |other: &str, found: &[usize]| found == shape && last(other) == last(name);
    let others =
        unknown.iter().filter(|(other, found)| fits(other, found)).map(|(other, _)| *other);
    others.min_by_key(|other| strsim::levenshtein(name, other))
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
        assert!(message.contains("c [1] is missing"), "{message}");
        assert_eq!(params[ParamId(0)].value[0], 0.0);

        other.load(&path).unwrap();
        assert_eq!(other[ParamId(1)].value, Tensor::full([2], 1.0));
    }
}
