//! Plans a comparison: both sides, what is compared with what, and how it is divided.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use futures::StreamExt as _;
use tokio_util::sync::CancellationToken;

use super::describe;
use super::half::{Half, Means};
use super::naming::Naming;
use super::options::CompareOptions;
use super::pairs::{self, Pairs};
use super::report::What;
use super::shared::{Pair, Shared, Unit};
use super::side::{Side, are_one};
use crate::context::{Context, cpu};
use crate::engine::import::views;
use crate::error::Result;
use crate::format::manifest::{CollectionKind, LeftOut, RawValue};
use crate::mongo::MongoUri;
use crate::names::Namespace;
use crate::source::discover::{self, CollectionInfo, Size};
use crate::source::ranges::{self, Division, Range};

/// Ranges at a time over a slow link, over which each cursor mostly waits.
const FAR_READERS: usize = 8;

/// The most ranges at a time that are chosen by the number of cores.
const NEAR_READERS: usize = 4;

/// The smallest range, in bytes. Small ranges leave little to search if they differ.
const SMALLEST: u64 = 2 * 1024 * 1024;

/// The most ranges that a collection is meant to have.
const RANGES: u64 = 512;

/// All that a comparison needs to begin reading.
pub(super) struct Plan {
    pub(super) shared: Shared,
    /// How many ranges to read at a time.
    pub(super) readers: usize,
    /// What only one side has: names in the source, and in the target.
    pub(super) missing: Vec<(Namespace, Namespace)>,
    pub(super) extra: Vec<(Namespace, Namespace)>,
    /// What is not compared.
    pub(super) left_out: [Vec<LeftOut>; 2],
}

/// What both sides have, before it is divided.
struct Looked {
    here: Side,
    there: Side,
    pairs: Pairs,
    /// What differs of options and indexes, by pair.
    described: Vec<Vec<What>>,
    left_out: [Vec<LeftOut>; 2],
}

/// Connects, lists both sides, and pairs and divides what they have.
pub(super) async fn prepare(
    source: &MongoUri,
    target: &MongoUri,
    options: &CompareOptions,
    halt: &CancellationToken,
    cx: &Context,
) -> Result<Plan> {
    let Looked { mut here, mut there, pairs, described, left_out } = look(source, target, options).await?;
    let Pairs { both, missing, extra } = pairs;
    let (sources, targets): (Vec<_>, Vec<_>) = both.into_iter().unzip();

    // 1. Measure, and divide.
    let sizes = tokio::join!(discover::sizes(&here.connection, &sources), discover::sizes(&there.connection, &targets));
    let far = tokio::try_join!(here.is_far(largest(&sources, &sizes.0)), there.is_far(largest(&targets, &sizes.1)))?;
    let near = cpu::cores().clamp(2, NEAR_READERS);
    let readers = options.tuning.readers.unwrap_or(if far.0 || far.1 { FAR_READERS } else { near });
    let mut ranges = divide(&here, &there, &sources, &targets, &sizes.0, options.tuning.range_bytes).await;

    // 2. What the workers take.
    cx.progress.begin("comparing");
    let (mut pairs, mut units) = (Vec::new(), Vec::new());
    let sides = sources.into_iter().zip(targets).zip(sizes.0.into_iter().zip(sizes.1));
    for ((number, ((source, target), sizes)), described) in sides.enumerate().zip(described) {
        let ranges = ranges.remove(&number).unwrap_or_default();
        let about = [sizes.0, sizes.1].map(Option::unwrap_or_default);
        let bytes = about[0].bytes + about[1].bytes;
        let item = cx.progress.item(source.namespace.to_string(), about[0].documents + about[1].documents, bytes);
        if ranges.is_empty() {
            item.finish();
        }
        pairs.push(Pair {
            has_order: have_order(&here, &source, &there, &target),
            by_bounds: ranges::has_bounds(&here.connection, &source),
            ranges_left: AtomicUsize::new(ranges.len()),
            item,
            described,
            found: Mutex::default(),
            source: Half::new(source, sizes.0),
            target: Half::new(target, sizes.1),
        });
        let each = bytes / (ranges.len() as u64).max(1);
        units.extend(ranges.into_iter().map(|range| Unit { pair: number, range, bytes: each }));
    }
    let budget = cx.memory.part(options.tuning.counted_bytes());
    let means = Means { budget, cpu: cx.cpu.share(), progress: cx.progress.clone(), halt: halt.clone() };
    Ok(Plan { shared: Shared::new(here, there, means, pairs, units), readers, missing, extra, left_out })
}

/// Connects, lists both sides, and pairs what they have. Refuses what cannot be compared.
async fn look(source: &MongoUri, target: &MongoUri, options: &CompareOptions) -> Result<Looked> {
    // 1. Connect.
    let most = options.tuning.readers.unwrap_or(FAR_READERS);
    let (mut here, mut there) =
        tokio::try_join!(Side::open(source, most, options.tuning.max_bits), Side::open(target, most, None))?;

    // 2. List.
    let filter = options.filter.clone().or_in(source.database());
    let listed = here.list(filter.clone()).await?;
    let names: Vec<Namespace> = listed.collections.iter().map(|info| info.namespace.clone()).collect();
    let naming = Naming::of_sides(options, &filter, names.iter(), target.database())?;
    let standing = there.list(naming.target_filter(names.iter())?).await?;

    // 3. Pair what belongs together.
    pairs::refuse_idle((&listed, &standing), options, &filter, &naming)?;
    let pairs = pairs::pair(listed.collections, standing.collections, &naming)?;
    if pairs.len() == 0 {
        return Err(pairs::nothing());
    }
    if are_one(&here, &there).await {
        pairs::refuse_itself(&pairs)?;
    }
    let described = pairs.both.iter().map(|(source, target)| described(source, target, &naming)).collect::<Result<_>>()?;
    Ok(Looked { here, there, pairs, described, left_out: [listed.left_out, standing.left_out] })
}

/// What differs of options and indexes.
pub(super) fn described(source: &CollectionInfo, target: &CollectionInfo, naming: &Naming<'_>) -> Result<Vec<What>> {
    if source.kind == CollectionKind::View && target.kind == CollectionKind::View {
        // A view reads what it names, and that has other names in the target.
        let options = RawValue::of(&source.options);
        let options = views::renamed(&options, &source.namespace, &target.namespace, |name| naming.of(name))?;
        return describe::differences(source, &options.bson, target);
    }
    describe::differences(source, &source.options, target)
}

/// The ranges of each pair with documents, by its number. Their bounds are `_id`s of the source;
/// both sides are read by them.
async fn divide(
    here: &Side,
    there: &Side,
    sources: &[CollectionInfo],
    targets: &[CollectionInfo],
    sizes: &[Option<Size>],
    range_bytes: Option<u64>,
) -> HashMap<usize, Vec<Range>> {
    let pairs = sources.iter().zip(targets).zip(sizes).enumerate();
    let with_documents =
        pairs.filter(|(_, ((source, target), _))| source.kind == target.kind && source.kind != CollectionKind::View);
    let divided = futures::stream::iter(with_documents).map(|(number, ((source, target), size))| async move {
        let size = size.unwrap_or_default();
        let bytes = range_bytes.unwrap_or_else(|| SMALLEST.max(size.bytes / RANGES));
        let division = Division { readers: 2, range_bytes: Some(bytes), fine_end: false };
        let ranges = match have_order(here, source, there, target) && !target.is_capped() {
            true => ranges::divide(&here.connection, source, size, division).await,
            false => vec![Range::Natural],
        };
        (number, ranges)
    });
    divided.buffer_unordered(8).boxed().collect().await
}

/// Whether parts of both can be read by `_id`, in the same order.
pub(super) fn have_order(here: &Side, source: &CollectionInfo, there: &Side, target: &CollectionInfo) -> bool {
    let collation = |info: &CollectionInfo| info.options.get_document("collation").ok().map(bson::RawDocument::to_owned);
    ranges::has_order(&here.connection, source)
        && ranges::has_order(&there.connection, target)
        && collation(source) == collation(target)
}

fn largest<'a>(collections: &'a [CollectionInfo], sizes: &[Option<Size>]) -> Option<(&'a CollectionInfo, Size)> {
    collections.iter().zip(sizes).filter_map(|(info, size)| Some((info, (*size)?))).max_by_key(|(_, size)| size.bytes)
}
