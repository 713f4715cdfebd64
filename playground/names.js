// Name the parts of widgets and pictures, by their tags, for people who hear the page: Bokeh leaves them without names.
for (const model of models) {
  const [name] = model.tags
  const view = Bokeh.index.find_one(model)
  if (model.type === "CategoricalSlider") {
    for (const handle of view.shadow_el.querySelectorAll(".noUi-handle")) handle.setAttribute("aria-label", name)
  } else if (model.type === "RadioButtonGroup") {
    const buttons = [...view.shadow_el.querySelectorAll("button")]
    const press = () => buttons.forEach((each, number) => each.setAttribute("aria-pressed", number === model.active))
    buttons.forEach((each, number) => each.setAttribute("aria-label", `${name}: ${number + 1} of 5 stars`))
    model.properties.active.change.connect(press)
    press()
  } else {
    view.el.setAttribute("role", model.type === "Figure" ? "img" : name)
    if (model.type === "Figure") {
      view.el.setAttribute("aria-label", name)
      view.canvas_view.events_el.tabIndex = -1 // nothing happens there
    }
  }
}
