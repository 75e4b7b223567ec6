//! The tensors of a checkpoint by name, whichever shard they are in.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use super::header::Tensor;
use super::shards::Checkpoint;

/// A map from names to tensors; it costs a few words a tensor and borrows the rest from the headers.
#[derive(Clone, Debug)]
pub struct Catalog<'a> {
    by_name: BTreeMap<&'a str, Place<'a>>,
}

/// Where a tensor is.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Place<'a> {
    /// The number of its shard.
    pub shard: usize,
    /// The file of its shard.
    pub path: &'a Path,
    /// Its name, dtype, shape and bytes.
    pub tensor: &'a Tensor,
}

impl<'a> Catalog<'a> {
    /// The tensors of all shards; of a name that is in two of them, the last, which loaders take.
    #[must_use]
    pub fn of(checkpoint: &'a Checkpoint) -> Self {
        let tensors = checkpoint.tensors();
        let place = |(shard, tensor): (usize, &'a Arc<Tensor>)| {
            let path = checkpoint.shards[shard].path.as_path();
            let place = Place {
                shard,
                path,
                tensor,
            };
            (tensor.name.as_str(), place)
        };
        Self {
            by_name: tensors.map(place).collect(),
        }
    }

    /// The tensor of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Place<'a>> {
        self.by_name.get(name).copied()
    }

    /// The tensors whose names start so, in the order of the names.
    pub fn starting_with<'s>(&'s self, prefix: &'s str) -> impl Iterator<Item = Place<'a>> + 's {
        self.by_name
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(name, _)| name.starts_with(prefix))
            .map(|(_, place)| *place)
    }

    /// How many tensors there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{open, sharded};
    use super::*;

    #[test]
    fn a_tensor_is_found_in_whichever_shard_it_is() {
        let (_root, dir) = sharded();
        let checkpoint = open(&dir).unwrap();
        let catalog = Catalog::of(&checkpoint);
        let place = catalog.get("z").unwrap();
        assert_eq!((place.shard, place.tensor.len), (1, 70));
        assert!(place.path.ends_with("a-2.safetensors"));
        assert!(catalog.get("w").is_none());
        assert_eq!((catalog.len(), catalog.is_empty()), (3, false));
    }

    #[test]
    fn a_prefix_gives_the_names_that_start_so() {
        let (_root, dir) = sharded();
        let checkpoint = open(&dir).unwrap();
        let catalog = Catalog::of(&checkpoint);
        let names = |prefix| -> Vec<&str> {
            let places = catalog.starting_with(prefix);
            places.map(|place| place.tensor.name.as_str()).collect()
        };
        assert_eq!(names(""), ["x", "y", "z"]);
        assert_eq!(names("y"), ["y"]);
        assert!(names("yy").is_empty());
    }
}
