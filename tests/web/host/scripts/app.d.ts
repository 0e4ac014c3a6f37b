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
}

export interface Node {
  id: number | string;
  title: string;
  type?: string;
  comfyClass?: string;
  graph?: Graph | null;
  subgraph?: Graph;
  size: [number, number];
  widgets?: Widget[];
  outputs?: Slot[];
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
  getNodeById(id: number | string): Node | null | undefined;
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
  loadedGraphNode?: (node: Node) => void;
  onNodeOutputsUpdated?: (outputs: Record<string, any>) => void;
}

export interface Toast {
  severity: "warn";
  summary: string;
  detail: string;
  life: number;
}

export const app: {
  graph?: Graph;
  canvas?: {
    processMouseWheel?: (event: WheelEvent) => void;
    processMouseDown?: (event: PointerEvent) => void;
  };
  configuringGraph?: boolean;
  nodeOutputs?: Record<string, any>;
  extensionManager?: {
    setting?: { get(id: string): unknown };
    toast?: { add(message: Toast): void };
  };
  graphToPrompt(): Promise<{ output: Record<string, { class_type: string; inputs: Record<string, unknown> }> }>;
  registerExtension(extension: Extension): void;
};

declare global {
  var LiteGraph: { vueNodesMode?: boolean } | undefined;
}
