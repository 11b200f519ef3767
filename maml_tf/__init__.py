"""Learning to learn on TensorFlow and Keras: MAML and its relatives, vectorised over tasks.

Importing the package starts no TensorFlow and defines no absl flag: the names below are imported
when they are first asked for, and `run_maml.py` asks each module for its flags.
"""

import importlib
import importlib.metadata

_HOMES = {
    'MAML': 'algorithms.optimisation.maml',
    'MetaSGD': 'algorithms.optimisation.meta_sgd',
    'Reptile': 'algorithms.optimisation.reptile',
    'GradientLearner': 'algorithms.optimisation.gradient_learner',
    'ANIL': 'algorithms.optimisation.anil',
    'IMAML': 'algorithms.optimisation.imaml',
    'AlphaMAML': 'algorithms.optimisation.alpha_maml',
    'MAMLPlusPlus': 'algorithms.optimisation.mamlpp',
    'MRMAML': 'algorithms.optimisation.mr_maml',
    'CAVIA': 'algorithms.optimisation.cavia',
    'DEML': 'algorithms.optimisation.deml',
    'BiasTransformation': 'algorithms.optimisation.bias_transformation',
    'LSTMMetaLearner': 'algorithms.optimisation.learnt_update.lstm_meta_learner',
    'Prototypical': 'algorithms.metric.prototypical',
    'Matching': 'algorithms.metric.matching',
    'Relation': 'algorithms.metric.relation',
    'Siamese': 'algorithms.metric.siamese',
    'MANN': 'algorithms.model_based.mann',
    'SNAIL': 'algorithms.model_based.snail',
    'MetaNetworks': 'algorithms.model_based.meta_networks',
    'CNP': 'algorithms.model_based.cnp',
    'CNPClassifier': 'algorithms.model_based.cnp_classifier',
    'InContext': 'algorithms.model_based.in_context',
    'Baseline': 'algorithms.baselines.baseline',
    'BaselinePP': 'algorithms.baselines.baseline_pp',
    'NearestNeighbour': 'algorithms.baselines.nearest_neighbour',
    'FineTuning': 'algorithms.baselines.fine_tuning',
    'FromScratch': 'algorithms.baselines.from_scratch',
    'MultiTask': 'algorithms.baselines.multi_task',
    'SupportOnly': 'algorithms.baselines.support_only',
    'GaussianProcessPosterior': 'algorithms.baselines.regression.gaussian_process',
    'InContextBaseline': 'algorithms.baselines.regression.in_context_baseline',
    'Viterbi': 'algorithms.baselines.viterbi',
    'R2D2': 'algorithms.closed_form.r2d2',
    'LRD2': 'algorithms.closed_form.lrd2',
    'MetaOptNet': 'algorithms.closed_form.metaoptnet',
    'HeadLearner': 'algorithms.closed_form.head_learner',
    'MetricLearner': 'algorithms.metric.metric_learner',
    'Learner': 'learner',
    'Task': 'episodes.task',
    'Batch': 'episodes.task',
    'TaskAndBatch': 'episodes.task',
    'Sequence': 'episodes.task',
    'EpisodeSpec': 'episodes.task',
    'BatchSpec': 'episodes.task',
    'TaskAndBatchSpec': 'episodes.task',
    'SequenceSpec': 'episodes.task',
    'EpisodeSource': 'episodes.source',
    'Draw': 'episodes.task',
    'ImageCompletion': 'episodes.image_completion',
    'ImageClasses': 'episodes.images',
    'Sinusoid': 'datasets.functions.sinusoid',
    'GaussianProcess': 'datasets.functions.gaussian_process',
    'Linear': 'datasets.functions.function_families',
    'SparseLinear': 'datasets.functions.function_families',
    'DecisionTree': 'datasets.functions.function_families',
    'TwoLayerNetwork': 'datasets.functions.function_families',
    'RenderedPose': 'datasets.objects.rendered_pose',
    'pose': 'datasets.objects.pose',
    'ChannelCoding': 'datasets.functions.channel_coding',
    'celeba': 'datasets.celeba',
    'GaussianPolicy': 'rl.policy',
    'MetaPolicy': 'rl.meta_policy',
    'Environment': 'rl.environments.environment',
    'Trajectories': 'rl.environments.environment',
    'Navigation2D': 'rl.environments.navigation2d',
    'omniglot': 'datasets.omniglot',
    'cifar_fs': 'datasets.cifar',
    'fc100': 'datasets.cifar',
    'cub': 'datasets.cub',
    'miniimagenet': 'datasets.miniimagenet',
    'tieredimagenet': 'datasets.tieredimagenet',
    'directory': 'datasets.directory',
    'landcover': 'datasets.landcover.tiles',
    'Molecules': 'datasets.molecules.molecules',
    'molecule_inputs': 'datasets.molecules.features',
    'LabelledRegions': 'episodes.segmentation.source',
    'sen12ms': 'datasets.landcover.sen12ms',
    'deepglobe': 'datasets.landcover.deepglobe',
    'label_images': 'datasets.landcover.folder',
    'UserVideos': 'datasets.objects.user_videos',
    'orbit': 'datasets.objects.orbit',
    'Network': 'networks.network',
    'ConvNet': 'networks.conv_net',
    'EncodedNetwork': 'networks.encoded',
    'FullyConnected': 'networks.fully_connected',
    'KerasNetwork': 'networks.keras_network',
    'GraphNetwork': 'networks.graphs.graph_network',
    'Cell': 'networks.cells.cell',
    'CellNet': 'networks.cells.cell_net',
    'cell_encoder': 'networks.cells.cell_encoder',
    'UNet': 'networks.unet',
    'conv4': 'networks.encoders',
    'r2d2_encoder': 'networks.image_encoders.r2d2_encoder',
    'resnet12': 'networks.image_encoders.resnet12',
    'Objective': 'objectives.objective',
    'Classification': 'objectives.classification',
    'MeanClassification': 'objectives.classification',
    'RocAuc': 'objectives.roc_auc',
    'Regression': 'objectives.regression',
    'Segmentation': 'objectives.pixels',
    'Return': 'objectives.objective',
    'Bits': 'objectives.bits',
    'GaussianLikelihood': 'objectives.regression',
    'Metric': 'objectives.metric',
    'UpdateRule': 'update_rules',
    'Loss': 'training.phases',
    'Update': 'training.phases',
    'Phase': 'training.phases',
    'OuterLoop': 'training.phases',
    'export': 'saving.exports.export',
    'UserError': 'errors',
}

__all__ = ['__version__', *_HOMES]  # noqa: PLE0604


def __getattr__(name: str):
    if name == '__version__':
        return importlib.metadata.version('maml_tf')
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'{__name__}.{_HOMES[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
