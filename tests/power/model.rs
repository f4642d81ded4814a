//! A disk as a record describes it: what is durable, and what a power cut may take or tear.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use postrider::env::{Entropy, SeededEntropy};

use super::record::Record;

/// Number of a file or directory, whatever it is called.
type Id = usize;

/// Where the root's own names are.
const ROOT: Id = 0;

#[derive(Debug)]
enum Node {
    File { durable: Vec<u8>, pending: Vec<(u64, Change)> },
    Dir { durable: BTreeMap<String, Id>, pending: Vec<(u64, Naming)> },
}

/// What happened to a file's content.
#[derive(Debug)]
enum Change {
    Write { at: usize, bytes: Arc<[u8]> },
    SetLen(usize),
}

/// What happened to a directory's names.
#[derive(Debug, Clone)]
enum Naming {
    Add(String, Id),
    Move(String, String),
    Remove(String),
}

/// Files and directories by path below the root; `None` is a directory.
pub type Tree = BTreeMap<String, Option<Vec<u8>>>;

/// What becomes of that which is not durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// All is lost.
    Lost,
    /// All is kept: a kill, not a cut.
    Kept,
    /// Names are lost, content is kept.
    NamesLost,
    /// Content is lost, names are kept.
    ContentLost,
    /// Each change of content is kept or not, of each directory's names the first few.
    Some,
    /// Each change of content and of names is kept or not.
    Any,
    /// Changes of content are torn into blocks of so many bytes, each kept or not; all names are kept.
    Torn(usize),
    /// Only the last change of content of each file is torn.
    LastTorn(usize),
}

/// All fates.
pub const FATES: [Fate; 10] = [
    Fate::Lost,
    Fate::Kept,
    Fate::NamesLost,
    Fate::ContentLost,
    Fate::Some,
    Fate::Any,
    Fate::Torn(512),
    Fate::Torn(4_096),
    Fate::LastTorn(512),
    Fate::LastTorn(4_096),
];

/// The disk.
pub struct Model {
    root: String,
    nodes: Vec<Node>,
    /// What every name means to a running process.
    names: BTreeMap<String, Id>,
    open: HashMap<i32, Id>,
    syncs: HashMap<u64, (Id, u64)>,
    clock: u64,
}

impl Model {
    /// A root directory that is empty and durable.
    pub fn new(root: &Path) -> Self {
        let root = root.to_str().unwrap().to_owned();
        let names = BTreeMap::from([(root.clone(), ROOT)]);
        let node = Node::Dir { durable: BTreeMap::new(), pending: Vec::new() };
        Self { root, nodes: vec![node], names, open: HashMap::new(), syncs: HashMap::new(), clock: 0 }
    }

    /// Takes the next record in.
    pub fn take(&mut self, record: &Record) {
        self.clock += 1;
        match record {
            Record::Start => {
                self.open.clear();
                self.syncs.clear();
            }
            Record::Open { fd, path, made, cut } => {
                // What lay there before the record began is not part of it.
                let known = self.names.get(path).copied();
                let Some(id) = known.or_else(|| made.then(|| self.make(path, false))) else { return };
                if *cut && !made {
                    self.change(id, Change::SetLen(0));
                }
                self.open.insert(*fd, id);
            }
            Record::Close { fd } => drop(self.open.remove(fd)),
            Record::Write { fd, at, bytes } => {
                let change = Change::Write { at: *at as usize, bytes: bytes.as_slice().into() };
                self.change(self.open[fd], change);
            }
            Record::Truncate { fd, len } => self.change(self.open[fd], Change::SetLen(*len as usize)),
            Record::SyncBegin { fd, ticket } => {
                if let Some(id) = self.open.get(fd) {
                    self.syncs.insert(*ticket, (*id, self.clock));
                }
            }
            Record::SyncEnd { ticket, worked } => {
                if let (Some((id, began)), true) = (self.syncs.remove(ticket), worked) {
                    self.harden(id, began);
                }
            }
            Record::Rename { from, to } => self.rename(from, to),
            Record::Remove { path } => {
                self.names.remove(path).expect("what is removed was there");
                self.name(path, Naming::Remove);
            }
            Record::MakeDir { path } => drop(self.make(path, true)),
            Record::Send { .. } | Record::Failed { .. } | Record::Fault => {}
        }
    }

    fn make(&mut self, path: &str, is_dir: bool) -> Id {
        let id = self.nodes.len();
        self.nodes.push(if is_dir {
            Node::Dir { durable: BTreeMap::new(), pending: Vec::new() }
        } else {
            Node::File { durable: Vec::new(), pending: Vec::new() }
        });
        self.names.insert(path.to_owned(), id);
        self.name(path, |name| Naming::Add(name, id));
        id
    }

    fn rename(&mut self, from: &str, to: &str) {
        let (dir, name) = from.rsplit_once('/').unwrap();
        let (to_dir, _) = to.rsplit_once('/').unwrap();
        assert_eq!(dir, to_dir, "a rename from one directory to another is not modelled");
        let (name, below) = (name.to_owned(), format!("{from}/"));
        self.name(to, |to| Naming::Move(name, to));
        let moved: Vec<_> =
            self.names.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        for path in moved {
            let id = self.names.remove(&path).unwrap();
            self.names.insert(format!("{to}{}", &path[from.len()..]), id);
        }
    }

    fn name(&mut self, path: &str, naming: impl FnOnce(String) -> Naming) {
        let (dir, name) = path.rsplit_once('/').unwrap();
        let Node::Dir { pending, .. } = &mut self.nodes[self.names[dir]] else { panic!("{dir} is no directory") };
        pending.push((self.clock, naming(name.to_owned())));
    }

    fn change(&mut self, id: Id, change: Change) {
        let Node::File { pending, .. } = &mut self.nodes[id] else { panic!("a write to a directory") };
        pending.push((self.clock, change));
    }

    /// What happened before `began` is durable.
    fn harden(&mut self, id: Id, began: u64) {
        match &mut self.nodes[id] {
            Node::File { durable, pending } => {
                let end = pending.partition_point(|(clock, _)| *clock < began);
                pending.drain(..end).for_each(|(_, change)| change.apply(durable));
            }
            Node::Dir { durable, pending } => {
                let end = pending.partition_point(|(clock, _)| *clock < began);
                pending.drain(..end).for_each(|(_, naming)| naming.apply(durable));
            }
        }
    }

    /// What lies there after a cut now.
    pub fn cut(&self, fate: Fate, random: &SeededEntropy) -> Tree {
        let mut tree = Tree::new();
        let mut dirs = vec![(String::new(), ROOT)];
        while let Some((path, id)) = dirs.pop() {
            for (name, id) in self.names_after(id, fate, random) {
                let path = if path.is_empty() { name } else { format!("{path}/{name}") };
                match &self.nodes[id] {
                    Node::File { .. } => drop(tree.insert(path, Some(self.content_after(id, fate, random)))),
                    Node::Dir { .. } => {
                        tree.insert(path.clone(), None);
                        dirs.push((path, id));
                    }
                }
            }
        }
        tree
    }

    fn names_after(&self, id: Id, fate: Fate, random: &SeededEntropy) -> BTreeMap<String, Id> {
        let Node::Dir { durable, pending } = &self.nodes[id] else { panic!("a directory") };
        let kept = match fate {
            Fate::Lost | Fate::NamesLost => 0,
            Fate::Some => below(random, pending.len() + 1),
            _ => pending.len(),
        };
        let mut names = durable.clone();
        for (_, naming) in &pending[..kept] {
            if fate != Fate::Any || random.next_u64().is_multiple_of(2) {
                naming.apply(&mut names);
            }
        }
        names
    }

    fn content_after(&self, id: Id, fate: Fate, random: &SeededEntropy) -> Vec<u8> {
        let Node::File { durable, pending } = &self.nodes[id] else { panic!("a file") };
        let mut content = durable.clone();
        // Of ten changes one, five or nine.
        let odds = [1, 5, 9][below(random, 3)];
        for (at, (_, change)) in pending.iter().enumerate() {
            let last = at + 1 == pending.len();
            match fate {
                Fate::Lost | Fate::ContentLost => {}
                Fate::Some | Fate::Any if below(random, 10) >= odds => {}
                Fate::Torn(block) => change.tear(&mut content, block, random),
                Fate::LastTorn(block) if last => change.tear(&mut content, block, random),
                _ => change.apply(&mut content),
            }
        }
        content
    }

    /// Whether the directory holds what the record says, byte for byte, but for what these names begin.
    pub fn assert_is(&self, dir: &Path, apart_from: &[&str]) {
        let random = SeededEntropy::new(0);
        let (mut found, mut recorded) = (read_tree(dir), self.cut(Fate::Kept, &random));
        assert_eq!(dir.to_str(), Some(&*self.root));
        for tree in [&mut found, &mut recorded] {
            tree.retain(|path, _| !apart_from.iter().any(|name| path.starts_with(name)));
        }
        let names = |tree: &Tree| tree.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&recorded), "the record misses names");
        for (path, content) in &found {
            assert!(*content == recorded[path], "the record misses writes to {path}");
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => content.resize(*len, 0),
            Self::Write { at, bytes } => {
                if content.len() < at + bytes.len() {
                    content.resize(at + bytes.len(), 0);
                }
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    /// Applies some of its blocks. A length that grew may be there without the bytes, or not.
    fn tear(&self, content: &mut Vec<u8>, block: usize, random: &SeededEntropy) {
        let Self::Write { at, bytes } = self else {
            if random.next_u64().is_multiple_of(2) {
                self.apply(content);
            }
            return;
        };
        let (first, end) = (at / block, (at + bytes.len()).div_ceil(block));
        let turn = first + below(random, end - first + 1);
        let way = below(random, 3);
        if random.next_u64().is_multiple_of(2) && content.len() < at + bytes.len() {
            content.resize(at + bytes.len(), 0);
        }
        for number in first..end {
            let kept = match way {
                0 => number < turn,
                1 => number >= turn,
                _ => random.next_u64().is_multiple_of(2),
            };
            let (from, to) = ((number * block).max(*at), ((number + 1) * block).min(at + bytes.len()));
            if kept {
                let part = Self::Write { at: from, bytes: bytes[from - at..to - at].into() };
                part.apply(content);
            }
        }
    }
}

impl Naming {
    /// What means nothing any more, since what came before it was lost, does nothing.
    fn apply(&self, names: &mut BTreeMap<String, Id>) {
        match self {
            Self::Add(name, id) => drop(names.insert(name.clone(), *id)),
            Self::Remove(name) => drop(names.remove(name)),
            Self::Move(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
        }
    }
}

/// A number below `end`.
pub fn below(random: &SeededEntropy, end: usize) -> usize {
    (random.next_u64() % end as u64) as usize
}

/// What lies below a directory.
pub fn read_tree(dir: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).unwrap().map(Result::unwrap) {
            let path = entry.path();
            let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                tree.insert(name, None);
                dirs.push(path);
            } else {
                tree.insert(name, Some(fs::read(path).unwrap()));
            }
        }
    }
    tree
}

/// Puts a tree below a directory.
pub fn write_tree(tree: &Tree, dir: &Path) {
    for (path, content) in tree {
        match content {
            None => fs::create_dir(dir.join(path)).unwrap(),
            Some(content) => fs::write(dir.join(path), content).unwrap(),
        }
    }
}
