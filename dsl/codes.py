"""Every code of a diagnostic and what it means, in one line each."""

CODES = {
    # The file and its text.
    "E001": "the plan cannot be read",
    "E002": "the plan, or a line of it, is too long",
    "E003": "the plan is not text in UTF-8",
    "E004": "the plan says nothing",
    "E005": "brackets are nested too deeply",
    # Syntax, values and names.
    "E101": "something is missing or out of place",
    "E102": "a bracket or a quote is not closed, or closes nothing",
    "E103": "a letter outside ASCII where it cannot be meant",
    "E104": "a number is misspelt or out of any range",
    "E105": "arithmetic that has no result",
    "E106": "a name that is not bound",
    "E107": "a block or setting that moec does not know",
    "E108": "something is given twice",
    "E109": "a value of the wrong kind or unit",
    "E110": "a value outside its range",
    "E111": "a setting or block is missing",
    "E112": "an item that does not belong in its block",
    "E113": "a name that cannot be used",
    "E114": "a --set that is not path=value",
    "E115": "a command line that moec does not know",
    "E116": "a number of processes that is not the plan's",
    # The mesh, and what goes over it.
    "E201": "the mesh has too many ranks or axes",
    "E202": "an axis that the mesh does not have",
    "E203": "a dim cannot be split evenly",
    "E204": "an axis splits nothing",
    "E205": "a dim that the model does not have",
    "E206": "a dim is placed twice",
    "E207": "one axis splits two dims of a weight",
    "E208": "one axis splits a dim twice",
    "E209": "a fold does not nest in the axes it folds over",
    "E210": "a fold is larger than the axes it folds over",
    "E211": "a fold over something that cannot be folded over",
    "E212": "the pipeline axis is not one plain axis of its own",
    "E213": "there are more stages than layers",
    "E214": "the batch does not divide",
    # The model.
    "E301": "heads do not divide",
    "E302": "a head's dimension is not usable",
    "E303": "more experts are chosen than there are",
    "E304": "the router would learn nothing",
    "E305": "an imported name that is not `package.module:name`",
    "E306": "an input of an imported model is not usable",
    # E4xx: what only a trace of the model shows (the compiler's).
    # Folders.
    "E501": "the output folder is no folder",
    "E502": "the output folder cannot be written",
    "E503": "the output folder holds something that moec did not write",
    "E504": "there is no output of moec to read",
    # Warnings.
    "W001": "a setting has no effect yet",
    "W002": "a setting has no effect in this plan",
    "W003": "the pipeline never fills",
}
