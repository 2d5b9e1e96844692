//! Where the live names of a search come from.
//!
//! Owns the three ways to them, which find the same in the same order: the index in memory, the table of
//! names while there is no index, and the files themselves if a digest, a tag or a collection is asked
//! for. Each name that is found is looked up in the catalog, so what the index says is never taken for granted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::catalog::names::{FoundName, NameKey, NamePattern, NameQuery, NameSearch};
use crate::catalog::{CatalogError, LiveNames, Reader};
use crate::globspec;
use crate::query::access::Want;
use crate::query::filter::{Cursor, Matcher};
use crate::types::path::{join, parent};
use crate::types::{FileId, Kind, Name, Seq};

use super::{Search, Stop};

/// Names that are taken out of the index at a time.
const AT_A_TIME: usize = 256;
/// Decisions remembered for directories.
const REMEMBERED: usize = 4096;

impl Search<'_, '_> {
    /// Finds the live names.
    pub(super) fn live_names(
        &mut self,
        reader: &Reader,
        top: FileId,
        names: Option<&LiveNames>,
    ) -> Result<(), Stop> {
        let mut after = match &self.filter.after {
            Some(Cursor::Gone(..)) => return Ok(()),
            Some(Cursor::Live(key)) => Some(key.clone()),
            None => None,
        };
        if let Some(labelled) = self.labelled.clone() {
            return self.names_of(reader, labelled, after.as_ref());
        }
        if let Some(prefix) = &self.filter.sha256 {
            // There is no index of the digests of heads.
            return self.names_of(reader, reader.heads_with(prefix)?, after.as_ref());
        }
        if let Some(names) = names {
            let mut search = NameSearch::new(self.query(top, after.clone()));
            while !search.is_done() {
                let Some(mut found) = names.step(&mut search, self.at_a_time()) else {
                    // It has just been thrown away: the table goes on where it stopped.
                    return self.in_table(reader, top, after.as_ref());
                };
                self.found(reader, &found)?;
                after = found.pop().map(|last| last.key).or(after);
            }
            return Ok(());
        }
        self.in_table(reader, top, after.as_ref())
    }

    /// How many names are looked at together: not many more than are wanted.
    fn at_a_time(&self) -> usize {
        let told = self.answer.records();
        let wanted = self.filter.limit.map_or(u64::MAX, |limit| limit.saturating_sub(told));
        usize::try_from(wanted).unwrap_or(AT_A_TIME).clamp(1, AT_A_TIME)
    }

    /// What the index is asked.
    fn query(&self, top: FileId, after: Option<NameKey>) -> NameQuery<'static> {
        let text = &self.filter.query.0;
        let pieces: Vec<Vec<u8>> = globspec::pieces(&String::from_utf8_lossy(text))
            .into_iter()
            .map(String::into_bytes)
            .collect();
        let matcher = Arc::clone(&self.matcher);
        let pattern = match &*self.matcher {
            Matcher::Substring(_) => NamePattern::part(text),
            Matcher::Name(_) => NamePattern::name_glob(&pieces, move |name| matcher.matches(name)),
            Matcher::Path(_) => NamePattern::path_glob(&pieces, move |path| matcher.matches(path)),
        };
        let extension = self.filter.extension.as_ref().map(|text| text.clone().into_bytes());
        NameQuery { top, pattern, extension, kind: self.filter.kind, after }
    }

    /// Reads the names of all directories, which takes long.
    fn in_table(
        &mut self,
        reader: &Reader,
        top: FileId,
        after: Option<&NameKey>,
    ) -> Result<(), Stop> {
        reader.in_one_state(|reader| {
            let dirs = self.dirs_below(reader, top)?;
            let first = after.map_or(FileId(0), |after| after.parent);
            for (dir, path) in dirs.range(first..) {
                let after = after.filter(|after| after.parent == *dir);
                let after = after.map_or(&b""[..], |after| &after.name);
                each_name(reader, *dir, after, |name, child, kind| {
                    let path = join(path, name);
                    let key = NameKey { parent: *dir, name: name.into() };
                    self.found(reader, &[FoundName { key, child, kind, path }])
                })?;
            }
            Ok(())
        })
    }

    /// The directories that may be looked into, in the order of their numbers, with their paths.
    fn dirs_below(
        &mut self,
        reader: &Reader,
        top: FileId,
    ) -> Result<BTreeMap<FileId, Vec<u8>>, Stop> {
        let path = self.prefix.strip_suffix(b"/").unwrap_or_default().to_vec();
        let (mut dirs, mut stack) = (BTreeMap::new(), vec![(top, path)]);
        while let Some((dir, path)) = stack.pop() {
            each_name(reader, dir, b"", |name, child, kind| {
                let path = join(&path, name);
                if kind == Kind::Dir && self.guard.live_path(&path, Want::List) {
                    stack.push((child, path));
                }
                Ok::<_, Stop>(())
            })?;
            dirs.insert(dir, path);
        }
        Ok(dirs)
    }

    /// Finds the names of files that are known.
    fn names_of(
        &mut self,
        reader: &Reader,
        files: Vec<FileId>,
        after: Option<&NameKey>,
    ) -> Result<(), Stop> {
        let mut names = Vec::new();
        for child in files {
            for at in reader.names_at(child, Seq(i64::MAX.cast_unsigned()))? {
                let key = NameKey { parent: at.dir, name: at.name };
                names.push(FoundName { key, child, kind: Kind::File, path: at.path });
            }
        }
        names.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        names.retain(|name| after.is_none_or(|after| name.key > *after));
        names.chunks(AT_A_TIME).try_for_each(|names| self.found(reader, names))
    }

    /// Looks at names that were found.
    fn found(&mut self, reader: &Reader, names: &[FoundName]) -> Result<(), Stop> {
        let fitting: Vec<_> = names.iter().filter(|name| self.fits(name)).collect();
        let nodes = reader.in_one_state(|reader| {
            let node = |name: &&FoundName| reader.live_name(name.key.parent, &name.key.name);
            fitting.iter().map(node).collect::<Result<Vec<_>, CatalogError>>()
        })?;
        for (name, node) in fitting.into_iter().zip(nodes) {
            // The name may have gone, or have come to another file since.
            let Some(node) = node else { continue };
            if self.labelled.is_none() || node.id == name.child {
                self.live(reader, &name.path, &node, Cursor::Live(name.key.clone()))?;
            }
        }
        Ok(())
    }

    /// Whether a name may be told of, as far as it says so itself.
    fn fits(&mut self, name: &FoundName) -> bool {
        let path = &name.path[..];
        path.starts_with(&self.prefix)
            && self.filter.fits_name(&name.key.name, name.kind)
            && self.matcher.matches(&path[self.prefix.len()..])
            && self.may_list(parent(path))
    }

    /// Whether the names of a directory and of all above it, up to the one that is searched, may be
    /// seen: nobody finds what lies below a directory that is closed to him.
    fn may_list(&mut self, dir: &[u8]) -> bool {
        if self.guard.sees_everything() || dir.is_empty() || dir.len() < self.prefix.len() {
            return true;
        }
        if let Some(known) = self.listable.get(dir) {
            return *known;
        }
        let may = self.may_list(parent(dir)) && self.guard.live_path(dir, Want::List);
        if self.listable.len() >= REMEMBERED {
            self.listable.clear();
        }
        self.listable.insert(dir.to_vec(), may);
        may
    }
}

/// Calls `visit` with every name of a directory after one, in order.
fn each_name(
    reader: &Reader,
    dir: FileId,
    after: &[u8],
    mut visit: impl FnMut(&[u8], FileId, Kind) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut after: Name = after.into();
    loop {
        let page = reader.names_in(dir, &after)?;
        for (name, child, kind) in &page {
            visit(name, *child, *kind)?;
        }
        match page.into_iter().next_back() {
            Some((last, ..)) => after = last,
            None => return Ok(()),
        }
    }
}
