//! Where programs' links and maps are pinned, and which pinned maps may be used again.
//!
//! A map whose shape or capacity is not what is wanted is made anew beside the old one (`<MAP>-next`) and takes its
//! place once the new programs are attached: until then the old programs keep using the old map. The tables that refer to
//! each other are kept or replaced together. A map of an older layout in which its entries mean the same is this layout's map, too:
//! it gets a second name. Must not know: what is in the maps.

use std::path::{Path, PathBuf};
use std::{fs, io};

use aya::maps::MapInfo;
use pagurus_ebpf_abi::{
    Address, Announced, AnnouncedKey, ClientKey, ClientValue, Endpoint, FlowKey, FlowValue, FragmentKey,
    FragmentValue, LAYOUT_VERSION, ReverseKey, ReverseValue, SourceRange, maps,
};

use crate::{Config, MapCapacity};

/// Suffix of a pin that waits to replace another (the BPF file system takes no dots in names).
const NEXT: &str = "-next";

/// A file operation on the pins that failed.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {path}")]
pub struct PinError {
    operation: &'static str,
    path: String,
    #[source]
    source: io::Error,
}

impl PinError {
    pub(crate) fn new(operation: &'static str, path: &Path, source: io::Error) -> Self {
        Self { operation, path: path.display().to_string(), source }
    }
}

/// The shape a map must have to be used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) key: usize,
    pub(crate) value: usize,
    pub(crate) capacity: u32,
    /// Refers to, or is referred to by, other maps.
    pub(crate) linked: bool,
    /// The first layout in which its entries mean what they mean now.
    since: u32,
}

/// The shapes of all pinned maps. Of those that grow it is the outer one's; the inner one has room of its own.
///
/// Whoever raises the layout's version raises `since` of the maps whose entries change, and of all that are linked if it is one of them.
pub(crate) fn shapes(capacity: &MapCapacity) -> Vec<Shape> {
    let shape = |name, key, value, capacity| Shape { name, key, value, capacity, linked: false, since: 2 };
    let word = size_of::<u32>();
    let linked = |shape| Shape { linked: true, ..shape };
    let growing = |name| linked(shape(name, word, word, 1));
    // A key of a trie has the length of its prefix before it.
    let range = word + size_of::<SourceRange>();
    let reverse = shape(maps::REVERSE, size_of::<ReverseKey>(), size_of::<ReverseValue>(), capacity.reverse);
    let (fragment, ports) = (size_of::<FragmentKey>(), size_of::<FragmentValue>());
    vec![
        growing(maps::SERVICES),
        growing(maps::SLOTS),
        growing(maps::BACKENDS),
        growing(maps::BACKEND_STATS),
        growing(maps::SERVICE_STATS),
        linked(shape(maps::SOURCE_RANGES, range, word, capacity.source_ranges)),
        shape(maps::CONNTRACK, word, word, 2),
        shape(maps::NODES, size_of::<Address>(), word, capacity.nodes),
        shape(maps::ENDPOINTS, size_of::<Address>(), size_of::<Endpoint>(), capacity.endpoints),
        shape(maps::ANNOUNCED, size_of::<AnnouncedKey>(), size_of::<Announced>(), capacity.announced),
        Shape { since: 1, ..reverse },
        shape(maps::FLOWS, size_of::<FlowKey>(), size_of::<FlowValue>(), capacity.flows),
        shape(maps::CLIENTS, size_of::<ClientKey>(), size_of::<ClientValue>(), capacity.clients),
        shape(maps::FRAGMENTS, fragment, ports, capacity.fragments),
        shape(maps::TAKEN_BACK, word, word, 1),
    ]
}

/// A map and where it is to be pinned.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) shape: Shape,
    /// Where it ends up.
    pub(crate) path: PathBuf,
    /// Where it is until the programs that use it are attached.
    pub(crate) now: PathBuf,
}

impl Place {
    /// Whether an older map is still in its place.
    pub(crate) fn replaces(&self) -> bool {
        self.path != self.now
    }
}

/// The folders of the pins.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    root: PathBuf,
    layout: u32,
}

impl Pins {
    pub(crate) fn new(config: &Config) -> Self {
        Self::at(&config.bpffs)
    }

    /// Below this BPF file system.
    pub(crate) fn at(bpffs: &Path) -> Self {
        Self { root: bpffs.join("pagurus"), layout: LAYOUT_VERSION }
    }

    /// The same folders, with maps of another layout.
    pub(crate) fn of_layout(self, layout: u32) -> Self {
        Self { layout, ..self }
    }

    fn maps(&self) -> PathBuf {
        self.maps_of(self.layout)
    }

    fn maps_of(&self, layout: u32) -> PathBuf {
        self.root.join(format!("maps-v{layout}"))
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    /// Where the link of a program is pinned.
    pub(crate) fn link(&self, program: &str) -> PathBuf {
        self.links().join(program)
    }

    /// Every pinned link.
    pub(crate) fn link_pins(&self) -> Result<Vec<PathBuf>, PinError> {
        entries(&self.links())
    }

    /// Makes the folders, removes what a crashed replacement left, and says where each map is to be pinned.
    pub(crate) fn prepare(&self, capacity: &MapCapacity) -> Result<Vec<Place>, PinError> {
        for folder in [self.maps(), self.links()] {
            fs::create_dir_all(&folder).map_err(|error| PinError::new("create", &folder, error))?;
        }
        for folder in [self.maps(), self.links()] {
            for path in entries(&folder)?.into_iter().filter(|path| is_next(path)) {
                remove(&path)?;
            }
        }
        let shapes = shapes(capacity);
        self.take_over(&shapes)?;
        let fits: Vec<bool> = shapes.iter().map(|shape| fits(&self.maps().join(shape.name), shape)).collect();
        let linked_fit = shapes.iter().zip(&fits).all(|(shape, fits)| *fits || !shape.linked);
        let place = |(shape, fits): (&Shape, &bool)| {
            let path = self.maps().join(shape.name);
            let keep = *fits && (linked_fit || !shape.linked);
            let now = if keep || !path.exists() { path.clone() } else { next(&path) };
            Place { shape: *shape, path, now }
        };
        Ok(shapes.iter().zip(&fits).map(place).collect())
    }

    /// Puts new maps in the place of old ones, and removes the maps of other layouts. To be called when no program
    /// uses the old maps any more.
    pub(crate) fn settle(&self, places: &mut [Place]) -> Result<(), PinError> {
        for place in places.iter_mut().filter(|place| place.replaces()) {
            fs::rename(&place.now, &place.path)
                .map_err(|error| PinError::new("rename", &place.now, error))?;
            place.now.clone_from(&place.path);
        }
        let own = self.maps();
        for folder in entries(&self.root)?.into_iter().filter(|path| *path != own && is_maps_folder(path)) {
            remove_folder(&folder)?;
        }
        Ok(())
    }

    /// Names maps of older layouts as this layout's, where there are none yet and their entries mean the same. The programs that use them
    /// go on with them.
    fn take_over(&self, shapes: &[Shape]) -> Result<(), PinError> {
        for shape in shapes {
            let own = self.map(shape.name);
            if own.exists() {
                continue;
            }
            let mut older =
                (shape.since..self.layout).rev().map(|layout| self.maps_of(layout).join(shape.name));
            if let Some(older) = older.find(|path| path.exists()) {
                fs::hard_link(&older, &own).map_err(|error| PinError::new("link", &older, error))?;
            }
        }
        Ok(())
    }

    /// Where a map of this layout is pinned.
    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    /// Every pin, and every folder after what is in it.
    pub(crate) fn everything(&self) -> Result<Vec<PathBuf>, PinError> {
        let mut all = Vec::new();
        if !self.root.exists() {
            return Ok(all);
        }
        // Links first: nobody uses the maps then.
        let mut folders = entries(&self.root)?;
        folders.sort();
        for folder in folders {
            let mut pins = entries(&folder)?;
            pins.sort();
            all.extend(pins);
            all.push(folder);
        }
        all.push(self.root.clone());
        Ok(all)
    }
}

/// Removes a pin or an empty folder of them; that it has gone already is as good.
pub(crate) fn remove_either(path: &Path) -> Result<(), PinError> {
    if !path.is_dir() {
        return remove(path);
    }
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PinError::new("remove", path, error)),
        _ => Ok(()),
    }
}

/// The path of a replacement.
pub(crate) fn next(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(NEXT);
    PathBuf::from(name)
}

fn is_next(path: &Path) -> bool {
    path.as_os_str().to_string_lossy().ends_with(NEXT)
}

fn is_maps_folder(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("maps-v"))
}

/// Whether the map pinned here has this shape; an absent one fits.
fn fits(path: &Path, shape: &Shape) -> bool {
    if !path.exists() {
        return true;
    }
    MapInfo::from_pin(path).is_ok_and(|info| {
        info.key_size() as usize == shape.key
            && info.value_size() as usize == shape.value
            && info.max_entries() == shape.capacity
    })
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, PinError> {
    let entries = fs::read_dir(folder).map_err(|error| PinError::new("list", folder, error))?;
    entries
        .map(|entry| entry.map(|entry| entry.path()).map_err(|error| PinError::new("list", folder, error)))
        .collect()
}

/// Removes a pin; that it has gone already is as good.
pub(crate) fn remove(path: &Path) -> Result<(), PinError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PinError::new("remove", path, error)),
        _ => Ok(()),
    }
}

fn remove_folder(folder: &Path) -> Result<(), PinError> {
    for path in entries(folder)? {
        remove(&path)?;
    }
    fs::remove_dir(folder).map_err(|error| PinError::new("remove", folder, error))
}
