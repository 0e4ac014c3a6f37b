// The parts of the host's page that web/ uses. All of them are in frontend 1.32 and in newer ones.

export interface Widget {
  name: string;
  value?: unknown;
  hidden?: boolean;
  serialize?: boolean;
  options: Record<string, unknown>;
  callback?: (this: Widget, ...values: any[]) => unknown;
  computeSize?: (width: number) => [number, number];
  onRemove?: (this: Widget) => void;
}

export interface DomOptions {
  serialize?: boolean;
  hideOnZoom?: boolean;
  margin?: number;
  getMinHeight?: () => number;
  getMaxHeight?: () => number | undefined;
}

export interface Slot {
  name: string;
  type: string;
  link?: number | null; // of an input
  links?: number[] | null; // of an output
}

export interface Link {
  origin_id: number | string;
  origin_slot: number;
  target_id: number | string;
  target_slot: number;
  parentId?: number; // the reroute that it ends at
}

/** An input or output of a subgraph, seen from inside. */
export interface SubgraphSlot {
  connect(slot: Slot | undefined, node: Node, reroute?: number): unknown;
}

export interface Command {
  id: string;
  label: string;
  icon: string;
  function: () => void;
}

export interface MenuItem {
  content: string;
  callback: () => void;
}

export interface Node {
  id: number | string;
  title: string;
  type?: string;
  comfyClass?: string;
  graph?: Graph | null;
  subgraph?: Graph;
  properties?: Record<string, any>; // saved with the workflow
  size: [number, number];
  pos: [number, number];
  mode?: number;
  color?: string;
  bgcolor?: string;
  constructor: Function & { title?: string };
  widgets?: Widget[];
  inputs?: Slot[];
  outputs?: Slot[];
  connect(slot: number, target: Node, targetSlot: number, reroute?: number): unknown;
  addWidget(type: "button", name: string, value: null, callback: () => void): Widget;
  findInputSlot(name: string): number; // -1 if there is none
  isInputConnected(slot: number): boolean;
  addDOMWidget(name: string, type: string, element: HTMLElement, options: DomOptions): Widget;
  computeSize(): [number, number];
  setSize(size: [number, number]): void;
  setDirtyCanvas?: (foreground: boolean, background: boolean) => void;
  onExecuted?: (this: Node, output: Record<string, any> | null, ...rest: any[]) => void;
  onConnectionsChange?: (this: Node, ...all: any[]) => void;
}

export interface Graph {
  id?: string;
  nodes?: Node[];
  rootGraph?: Graph;
  subgraphs?: Map<string, Graph>;
  inputs?: SubgraphSlot[];
  outputs?: SubgraphSlot[];
  getNodeById(id: number | string): Node | null | undefined;
  getLink?(id: number): Link | null | undefined;
  add(node: Node): unknown;
  remove(node: Node): void;
  onNodeAdded?: (node: Node) => void;
}

export interface Setting {
  id: string;
  category: string[];
  name: string;
  tooltip: string;
  type: "boolean";
  defaultValue: boolean;
  onChange?: (value: boolean) => void;
}

export interface Extension {
  name: string;
  settings?: Setting[];
  setup?: () => void;
  nodeCreated?: (node: Node) => void;
  commands?: Command[];
  getSelectionToolboxCommands?: (item: Node) => string[];
  getNodeMenuItems?: (node: Node) => MenuItem[];
  loadedGraphNode?: (node: Node) => void;
  onNodeOutputsUpdated?: (outputs: Record<string, any>) => void;
}

export interface Toast {
  severity: "warn" | "info" | "success";
  summary: string;
  detail: string;
  life: number;
}

/** What the server runs, by execution ids. */
export type Prompt = Record<string, { class_type: string; inputs: Record<string, unknown> }>;

/** What is open in a tab. It stays the same object when its file gets another name. */
export interface Workflow {
  changeTracker?: { nodeOutputs?: Record<string, any> } | null;
}

export const app: {
  graph?: Graph;
  canvas?: {
    processMouseWheel?: (event: WheelEvent) => void;
    emitBeforeChange?: () => void;
    emitAfterChange?: () => void;
    selectedItems?: Iterable<Node>;
    selectItems?: (items: Node[]) => void;
    processMouseDown?: (event: PointerEvent) => void;
  };
  configuringGraph?: boolean;
  nodeOutputs?: Record<string, any>;
  extensionManager?: {
    setting?: { get(id: string): unknown };
    toast?: { add(message: Toast): void };
    workflow?: { activeWorkflow?: Workflow | null };
  };
  graphToPrompt(): Promise<{ output: Prompt }>;
  registerExtension(extension: Extension): void;
};

declare global {
  var LiteGraph: { vueNodesMode?: boolean; createNode?: (type: string) => Node | null } | undefined;
}
