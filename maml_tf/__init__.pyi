"""What type checkers see of the package; __init__.py imports these when they are asked for."""

from maml_tf.algorithms.baselines.baseline import Baseline as Baseline
from maml_tf.algorithms.baselines.baseline_pp import BaselinePP as BaselinePP
from maml_tf.algorithms.baselines.fine_tuning import FineTuning as FineTuning
from maml_tf.algorithms.baselines.from_scratch import FromScratch as FromScratch
from maml_tf.algorithms.baselines.multi_task import MultiTask as MultiTask
from maml_tf.algorithms.baselines.nearest_neighbour import NearestNeighbour as NearestNeighbour
from maml_tf.algorithms.baselines.regression.gaussian_process import (
    GaussianProcessPosterior as GaussianProcessPosterior,
)
from maml_tf.algorithms.baselines.regression.in_context_baseline import (
    InContextBaseline as InContextBaseline,
)
from maml_tf.algorithms.baselines.support_only import SupportOnly as SupportOnly
from maml_tf.algorithms.baselines.viterbi import Viterbi as Viterbi
from maml_tf.algorithms.closed_form.head_learner import HeadLearner as HeadLearner
from maml_tf.algorithms.closed_form.lrd2 import LRD2 as LRD2
from maml_tf.algorithms.closed_form.metaoptnet import MetaOptNet as MetaOptNet
from maml_tf.algorithms.closed_form.r2d2 import R2D2 as R2D2
from maml_tf.algorithms.metric.matching import Matching as Matching
from maml_tf.algorithms.metric.metric_learner import MetricLearner as MetricLearner
from maml_tf.algorithms.metric.prototypical import Prototypical as Prototypical
from maml_tf.algorithms.metric.relation import Relation as Relation
from maml_tf.algorithms.metric.siamese import Siamese as Siamese
from maml_tf.algorithms.model_based.cnp import CNP as CNP
from maml_tf.algorithms.model_based.cnp_classifier import CNPClassifier as CNPClassifier
from maml_tf.algorithms.model_based.in_context import InContext as InContext
from maml_tf.algorithms.model_based.mann import MANN as MANN
from maml_tf.algorithms.model_based.meta_networks import MetaNetworks as MetaNetworks
from maml_tf.algorithms.model_based.snail import SNAIL as SNAIL
from maml_tf.algorithms.optimisation.alpha_maml import AlphaMAML as AlphaMAML
from maml_tf.algorithms.optimisation.anil import ANIL as ANIL
from maml_tf.algorithms.optimisation.bias_transformation import (
    BiasTransformation as BiasTransformation,
)
from maml_tf.algorithms.optimisation.cavia import CAVIA as CAVIA
from maml_tf.algorithms.optimisation.deml import DEML as DEML
from maml_tf.algorithms.optimisation.gradient_learner import GradientLearner as GradientLearner
from maml_tf.algorithms.optimisation.imaml import IMAML as IMAML
from maml_tf.algorithms.optimisation.learnt_update.lstm_meta_learner import (
    LSTMMetaLearner as LSTMMetaLearner,
)
from maml_tf.algorithms.optimisation.maml import MAML as MAML
from maml_tf.algorithms.optimisation.mamlpp import MAMLPlusPlus as MAMLPlusPlus
from maml_tf.algorithms.optimisation.meta_sgd import MetaSGD as MetaSGD
from maml_tf.algorithms.optimisation.mr_maml import MRMAML as MRMAML
from maml_tf.algorithms.optimisation.reptile import Reptile as Reptile
from maml_tf.datasets.celeba import celeba as celeba
from maml_tf.datasets.cifar import cifar_fs as cifar_fs
from maml_tf.datasets.cifar import fc100 as fc100
from maml_tf.datasets.cub import cub as cub
from maml_tf.datasets.directory import directory as directory
from maml_tf.datasets.functions.channel_coding import ChannelCoding as ChannelCoding
from maml_tf.datasets.functions.function_families import DecisionTree as DecisionTree
from maml_tf.datasets.functions.function_families import Linear as Linear
from maml_tf.datasets.functions.function_families import SparseLinear as SparseLinear
from maml_tf.datasets.functions.function_families import TwoLayerNetwork as TwoLayerNetwork
from maml_tf.datasets.functions.gaussian_process import GaussianProcess as GaussianProcess
from maml_tf.datasets.functions.sinusoid import Sinusoid as Sinusoid
from maml_tf.datasets.landcover.deepglobe import deepglobe as deepglobe
from maml_tf.datasets.landcover.folder import label_images as label_images
from maml_tf.datasets.landcover.sen12ms import sen12ms as sen12ms
from maml_tf.datasets.landcover.tiles import landcover as landcover
from maml_tf.datasets.miniimagenet import miniimagenet as miniimagenet
from maml_tf.datasets.molecules.features import molecule_inputs as molecule_inputs
from maml_tf.datasets.molecules.molecules import Molecules as Molecules
from maml_tf.datasets.objects.orbit import orbit as orbit
from maml_tf.datasets.objects.pose import pose as pose
from maml_tf.datasets.objects.rendered_pose import RenderedPose as RenderedPose
from maml_tf.datasets.objects.user_videos import UserVideos as UserVideos
from maml_tf.datasets.omniglot import omniglot as omniglot
from maml_tf.datasets.tieredimagenet import tieredimagenet as tieredimagenet
from maml_tf.episodes.image_completion import ImageCompletion as ImageCompletion
from maml_tf.episodes.images import ImageClasses as ImageClasses
from maml_tf.episodes.segmentation.source import LabelledRegions as LabelledRegions
from maml_tf.episodes.source import EpisodeSource as EpisodeSource
from maml_tf.episodes.task import Batch as Batch
from maml_tf.episodes.task import BatchSpec as BatchSpec
from maml_tf.episodes.task import Draw as Draw
from maml_tf.episodes.task import EpisodeSpec as EpisodeSpec
from maml_tf.episodes.task import Sequence as Sequence
from maml_tf.episodes.task import SequenceSpec as SequenceSpec
from maml_tf.episodes.task import Task as Task
from maml_tf.episodes.task import TaskAndBatch as TaskAndBatch
from maml_tf.episodes.task import TaskAndBatchSpec as TaskAndBatchSpec
from maml_tf.errors import UserError as UserError
from maml_tf.learner import Learner as Learner
from maml_tf.networks.cells.cell import Cell as Cell
from maml_tf.networks.cells.cell_encoder import cell_encoder as cell_encoder
from maml_tf.networks.cells.cell_net import CellNet as CellNet
from maml_tf.networks.conv_net import ConvNet as ConvNet
from maml_tf.networks.encoded import EncodedNetwork as EncodedNetwork
from maml_tf.networks.encoders import conv4 as conv4
from maml_tf.networks.fully_connected import FullyConnected as FullyConnected
from maml_tf.networks.graphs.graph_network import GraphNetwork as GraphNetwork
from maml_tf.networks.image_encoders.r2d2_encoder import r2d2_encoder as r2d2_encoder
from maml_tf.networks.image_encoders.resnet12 import resnet12 as resnet12
from maml_tf.networks.keras_network import KerasNetwork as KerasNetwork
from maml_tf.networks.network import Network as Network
from maml_tf.networks.unet import UNet as UNet
from maml_tf.objectives.bits import Bits as Bits
from maml_tf.objectives.classification import Classification as Classification
from maml_tf.objectives.classification import MeanClassification as MeanClassification
from maml_tf.objectives.metric import Metric as Metric
from maml_tf.objectives.objective import Objective as Objective
from maml_tf.objectives.objective import Return as Return
from maml_tf.objectives.pixels import Segmentation as Segmentation
from maml_tf.objectives.regression import GaussianLikelihood as GaussianLikelihood
from maml_tf.objectives.regression import Regression as Regression
from maml_tf.objectives.roc_auc import RocAuc as RocAuc
from maml_tf.rl.environments.environment import Environment as Environment
from maml_tf.rl.environments.environment import Trajectories as Trajectories
from maml_tf.rl.environments.navigation2d import Navigation2D as Navigation2D
from maml_tf.rl.meta_policy import MetaPolicy as MetaPolicy
from maml_tf.rl.policy import GaussianPolicy as GaussianPolicy
from maml_tf.saving.exports.export import export as export
from maml_tf.training.phases import Loss as Loss
from maml_tf.training.phases import OuterLoop as OuterLoop
from maml_tf.training.phases import Phase as Phase
from maml_tf.training.phases import Update as Update
from maml_tf.update_rules import UpdateRule as UpdateRule

__version__: str
