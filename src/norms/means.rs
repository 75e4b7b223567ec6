//! The means of a layer's inputs, beside its norms: what the sums of squares about the mean are made of.

use super::entries::Norms;
use super::error::Error;
use super::lookup::Lookup;

impl Norms {
    /// Adds the means of the inputs of a weight that has norms already, as many and in the same order: of one weight
    /// `[in_features]`, of experts a row each.
    ///
    /// # Errors
    /// [`Error::Malformed`] if there are no norms, or another number of them.
    pub fn insert_means(&mut self, weight: &str, means: Vec<f32>) -> Result<(), Error> {
        let (path, format) = (&self.source.path, self.source.format);
        match self.entries.get_mut(weight) {
            Some(entry) if entry.values.len() == means.len() => {
                entry.means = Some(means);
                Ok(())
            }
            _ => {
                let what = format!(
                    "`{}` has {} means, which is not the number of its norms",
                    crate::untrusted::shown(weight),
                    means.len()
                );
                Err(Error::malformed(path, format, what))
            }
        }
    }

    /// The sums of squares about the mean of one matrix's inputs, `n_j - t m_j^2` over `t` tokens, asked for as
    /// [`get`](Self::get) asks: `None` where there are no norms, or nothing was measured.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`Error::NoMeans`] where there are norms without means, or the number of tokens is not known.
    pub(crate) fn about_mean(
        &self,
        weight: &str,
        expert: Option<usize>,
        in_features: usize,
    ) -> Result<Option<Vec<f32>>, Error> {
        let Lookup::Measured(norms) = self.get(weight, expert, in_features)? else {
            return Ok(None);
        };
        let Some((name, entry, of_entry)) = self.find(weight, expert) else {
            return Ok(None);
        };
        let place = self.place(name, entry, name == weight, weight, of_entry, in_features)?;
        let tokens = self.tokens(weight, expert).or(self.source.tokens);
        let means = entry.means.as_ref().map(|means| &means[place]);
        let (Some(means), Some(tokens)) = (means, tokens) else {
            return Err(Error::NoMeans {
                path: self.source.path.clone(),
                weight: weight.to_owned(),
            });
        };
        if let Some(column) = means.iter().position(|mean| !mean.is_finite()) {
            return Err(Error::Mean {
                path: self.source.path.clone(),
                weight: weight.to_owned(),
                column,
            });
        }
        let about_mean = |(&norm, &mean): (&f32, &f32)| {
            let mean = f64::from(mean);
            (f64::from(norm) - tokens as f64 * (mean * mean)).max(0.0) as f32
        };
        Ok(Some(norms.iter().zip(means).map(about_mean).collect()))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::norms::Provenance;

    fn norms(tokens: Option<u64>) -> Norms {
        let mut norms = Norms::new(Provenance::measured("norms".into(), tokens));
        norms.insert("w", vec![10.0, 8.0, 4.0]).unwrap();
        norms.insert_means("w", vec![1.0, -2.0, 0.0]).unwrap();
        norms
    }

    #[test]
    fn squares_about_the_mean_are_those_less_the_tokens_times_the_square_of_the_mean() {
        let found = norms(Some(2)).about_mean("w", None, 3).unwrap();
        assert_eq!(found, Some(vec![8.0, 0.0, 4.0]));
        assert_eq!(norms(Some(2)).about_mean("v", None, 3).unwrap(), None);
    }

    #[test]
    fn experts_have_means_and_tokens_of_their_own() {
        let mut norms = norms(None);
        norms
            .insert_experts("e", vec![5.0, 6.0, 8.0, 9.0], vec![1, 2])
            .unwrap();
        assert!(norms.insert_means("e", vec![1.0, 1.0]).is_err());
        norms.insert_means("e", vec![1.0, 1.0, 2.0, 1.5]).unwrap();
        assert_eq!(
            norms.about_mean("e", Some(1), 2).unwrap(),
            Some(vec![0.0, 4.5])
        );
    }

    #[test]
    fn norms_without_means_or_tokens_are_refused_by_name() {
        let error = norms(None).about_mean("w", None, 3).unwrap_err();
        assert!(matches!(error, Error::NoMeans { .. }), "{error}");
        let mut without = Norms::new(Provenance::measured("old".into(), Some(2)));
        without.insert("w", vec![1.0]).unwrap();
        let error = without.about_mean("w", None, 1).unwrap_err();
        assert!(
            error.to_string().starts_with("old: ") && error.to_string().contains('w'),
            "{error}"
        );
        let mut damaged = norms(Some(2));
        damaged.insert_means("w", vec![0.0, f32::NAN, 0.0]).unwrap();
        let error = damaged.about_mean("w", None, 3).unwrap_err();
        assert!(matches!(error, Error::Mean { column: 1, .. }), "{error}");
    }

    #[test]
    fn means_are_written_beside_the_norms_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("norms.safetensors");
        let mut norms = norms(Some(2));
        norms
            .insert_experts("e", vec![5.0, 6.0, 8.0, 9.0], vec![1, 2])
            .unwrap();
        norms.insert_means("e", vec![1.0, 1.0, 2.0, 1.5]).unwrap();
        norms.write(&path).unwrap();
        let again = Norms::read(Path::new(&path)).unwrap();
        assert_eq!(again.len(), 2, "means are not norms");
        assert_eq!(again.entries, norms.entries);
    }
}
