def check(config, **kw):
    return []
def check_model(model, scope):
    pass
def check_options(options, config, path):
    pass
def warmup_warning(runner):
    return None
def trains_masks(m):
    return False
